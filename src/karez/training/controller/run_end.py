"""Ends a run of a gang: on purpose, or after its last command."""

from collections.abc import Mapping
from dataclasses import replace

import structlog

from karez.core.errors import BadRequest, KarezError
from karez.core.ports import NodeLost
from karez.core.workloads import EndReason
from karez.training.controller.gang_run import GangRun
from karez.training.controller.log_copier import copy_logs
from karez.training.controller.outputs import register_outputs
from karez.training.recovery.commands import EndGang
from karez.training.recovery.state import Phase

log = structlog.get_logger()
STOP_GRACE_S = 5.0
"""Between SIGTERM and SIGKILL when a job is cancelled. Kubernetes' default is 30 s; ranks here
have nothing to save by then, since every step is kept."""


def stop_run(run: GangRun, end: EndGang) -> None:
    """End the ranks on purpose: a later start of the job has nothing to recover from."""
    for index, rank in run.gang.active:
        run.executor.kill(rank.node, index, rank.attempt, STOP_GRACE_S)
    run.executor.wait_until_gone(set(run.allocation.workers), 2 * STOP_GRACE_S)
    run.gang = replace(run.gang, phase=Phase.DONE)
    run.status.log(run.gang)
    run.end = end


def close_run(run: GangRun, end: EndGang) -> None:
    """Register the outputs, and end the job or queue it again."""
    copy_logs(run.deps, run.job.id, run.gang, run.executor.context.epoch)
    outputs, end = _store_own_checkpoints(run, end)
    if end.reason == EndReason.DONE:
        try:
            collected = run.executor.collect(run.gang)
            outputs = {**outputs, **register_outputs(run.deps, run.job, collected)}
        except NodeLost as lost:
            detail = f"outputs are out of reach: {lost}"
            end = EndGang(reason=EndReason.OUTPUT_LOST, detail=detail)
        except BadRequest as error:
            end = EndGang(reason=EndReason.USER_ERROR, detail=str(error))
    is_retried = run.status.may_retry(end.reason)
    if end.reason not in (EndReason.DONE, EndReason.OUTPUT_LOST) and not is_retried:
        outputs = {**outputs, **_keep_unfinished(run)}
    if is_retried:
        run.executor.purge()  # before the queue can start the job again
    run.status.close(end, outputs, run.gang)
    if not is_retried:
        run.executor.purge()  # only now: a controller that finds no process of a live job starts it


def _keep_unfinished(run: GangRun) -> Mapping[str, str]:
    """Register what a job that did not succeed has written, for some time."""
    keep_s = run.deps.settings.keep_failed_s
    if not keep_s:
        return {}
    try:
        files = run.executor.collect(run.gang)
        until = run.deps.clock.now() + keep_s
        return register_outputs(run.deps, run.job, files, kept_until=until)
    except (NodeLost, KarezError, OSError, LookupError, ValueError) as error:
        log.warning("job.outputs-not-kept", job=run.job.id, error=str(error))
        return {}


def _store_own_checkpoints(run: GangRun, end: EndGang) -> tuple[Mapping[str, str], EndGang]:
    """Store KAREZ_CHECKPOINT_DIR. Returns it as an output, and the end with what went wrong."""
    run.executor.wait_until_gone(set(run.allocation.workers), 2 * STOP_GRACE_S)
    ident = run.own_checkpoints.store()
    if run.own_checkpoints.problem:
        detail = "; ".join(filter(None, (end.detail, run.own_checkpoints.problem)))
        end = replace(end, detail=detail)
    return ({"checkpoints": ident} if ident else {}), end
