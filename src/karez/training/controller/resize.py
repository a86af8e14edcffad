"""Carries out a requested change of size of an elastic gang."""

from collections.abc import Mapping

from karez.core.grants import Grant
from karez.training.controller.gang_run import GangRun
from karez.training.controller.run_end import STOP_GRACE_S
from karez.training.recovery.events import Resized
from karez.training.recovery.state import Phase


def resize(run: GangRun) -> None:
    """Take the size that was requested, if there is one and the gang can change now."""
    requests = run.deps.store.resize_requests
    if run.gang.phase != Phase.RUNNING:
        return
    grants = requests.take(run.job.id)
    if grants is None or not run.gang.may_resize:
        return  # a plain script keeps the size that it started with
    present = {index: run.allocation.workers[index] for index, _ in run.gang.active}
    workers = [grant for grant in grants if not grant.role]
    kept = {index: grant for index, grant in present.items() if grant in workers}
    new = [grant for grant in workers if grant not in present.values()]
    joining = dict(enumerate(new, len(run.gang.ranks)))
    if joining and not _regrant(run, {**present, **joining}):
        return
    run.placer.follow(new)
    leaving = tuple(index for index in present if index not in kept)
    nodes = {index: grant.node for index, grant in joining.items()}
    run.apply(Resized(leave=leaving, join=nodes))
    if leaving:
        run.executor.wait_until_gone(set(leaving), STOP_GRACE_S)
        _regrant(run, {**kept, **joining})


def _regrant(run: GangRun, grants: Mapping[int, Grant]) -> bool:
    if not run.placer.regrant(grants):
        run.stopped.set()  # another control owns the job
        return False
    return True
