"""Real gangs: transitions, rungs of the ladder, loaders, bad losses, nodes that are not trusted."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from karez.core.nodes import NodeId
from karez.core.settings import Settings
from karez.core.workloads import EndReason, State
from karez.training.controller.job_controller import JobController
from karez.training.recovery.state import Gang as GangState
from tests.contracts.gang import Bench, Gang, assert_nothing_left, run_alone, until
from tests.contracts.test_recovery import gpus, undisturbed

pytestmark = pytest.mark.alone
HERE = Path(__file__).parent
QUICK = Settings(checkpoint_s=1e9, tick_s=0.1, hang_s=0.7)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, ["a"], settings=QUICK)
    yield made
    made.close()
    assert_nothing_left(made)


class Killed(Exception):
    """What stands for SIGKILL to a controller: nothing after it is done."""


def mortal(controller: JobController, at: int, *, after: bool) -> None:
    """Have a controller die at a transition, before it is written down or right after."""
    write, seen = controller.status.log, 0

    def log(gang: GangState) -> None:
        nonlocal seen
        seen += 1
        if seen == at and not after:
            raise Killed
        write(gang)
        if seen == at:
            raise Killed

    controller.status.log = log  # type: ignore[method-assign]


def start_mortal(gang: Gang, at: int, *, after: bool) -> threading.Thread:
    """A controller that will die."""
    gang.start(begin=False)
    controller = gang.controller
    assert controller is not None
    mortal(controller, at, after=after)

    def until_death() -> None:
        try:
            run_alone(controller, gang.woken)
        except Killed:
            return

    gang.thread = threading.Thread(target=until_death, daemon=True)
    gang.thread.start()
    return gang.thread


def until_or_death(gang: Gang, thread: threading.Thread, condition: Callable[[Gang], bool]) -> None:
    """Wait until a condition holds or the controller's thread has ended."""
    until(lambda: condition(gang) or not thread.is_alive())


@pytest.mark.deep
@pytest.mark.parametrize("after", [False, True])
def test_a_controller_may_die_at_every_transition_and_nothing_is_lost(
    bench: Bench, *, after: bool
) -> None:
    losses, weights = undisturbed(bench, steps=25)
    transitions = 0
    for at in range(1, 20):
        gang = Gang(bench, steps=25)
        thread = start_mortal(gang, at, after=after)
        until_or_death(gang, thread, lambda gang: gang.step() >= 6)
        if not thread.is_alive():
            gang.start()
        gang.reach(6)
        gang.kill(1)
        until_or_death(gang, thread, Gang.ended)
        if not gang.ended() and not (gang.thread and gang.thread.is_alive()):
            gang.start()
        done = gang.finish()
        assert done.state == State.SUCCEEDED, f"{at}: {done.status} {bench.logs.text()[-2000:]}"
        assert gang.losses() == losses
        assert gang.weights() == weights
        every = bench.store.history.receipts(gang.id)
        receipts = [receipt for receipt in every if "rank 1" in receipt.cause]
        assert len(receipts) == 1, f"{at}: {every}"
        assert receipts[0].steps_lost <= 1
        transitions = at
        if thread.is_alive() or len(bench.store.history.transitions(gang.id)) < at:
            break  # it was done before that many transitions
    assert transitions >= 7


def test_a_frozen_rank_is_replaced_and_one_that_computes_is_left_alone(bench: Bench) -> None:
    losses, weights = undisturbed(bench)
    gang = Gang(bench).start()
    gang.reach(10)
    os.kill(gang.processes()[1].pid, signal.SIGSTOP)
    assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
    (receipt,) = bench.store.history.receipts(gang.id)
    assert (receipt.code, receipt.rung) == ("frozen", "in-place")
    assert receipt.confirmed_at - receipt.detected_at < 5
    assert gang.losses() == losses
    assert gang.weights() == weights


def test_a_gang_without_retry_in_its_ladder_starts_over(bench: Bench) -> None:
    gang = Gang(bench, steps=2000, ladder=("restart",)).start()
    gang.reach(5)
    gang.kill(0)
    until(lambda: gang.job().state == State.QUEUED, what="a restart")
    assert gang.job().status.retries == 1
    assert bench.store.history.newest_checkpoint(gang.id, [0, 1])  # its dying gasp


@pytest.mark.parametrize(
    ("word", "more"),
    [("not finite", {}), pytest.param("leapt", {"spike": 8.0}, marks=pytest.mark.deep)],
)
def test_a_batch_with_a_bad_loss_is_tried_again_and_then_left_out(
    bench: Bench, word: str, more: dict[str, float]
) -> None:
    calm = Gang(bench, script=HERE / "stream_job.py", steps=26).start()
    assert calm.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
    seen = _seen(bench, calm)
    bad = float.fromhex(seen[21][1])
    gang = Gang(bench, script=HERE / "stream_job.py", steps=26, more={**more, "bad": bad}).start()
    assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
    receipts = bench.store.history.receipts(gang.id)
    assert [receipt.code for receipt in receipts] == ["nan"]
    assert receipts[0].skipped == (21,)
    assert "is left out" in receipts[0].cause
    assert word in receipts[0].cause
    final = dict(_seen(bench, gang))  # the last word on each step
    assert [final[str(n)] for n in range(1, 22)] == [value for _, value in seen[:21]]
    assert final["22"] == seen[22][1]  # the batch after the bad one takes its place


@pytest.mark.parametrize("stateful", [0.0, pytest.param(1.0, marks=pytest.mark.deep)])
def test_a_loader_with_workers_gives_every_batch_once_whatever_is_killed(
    bench: Bench, stateful: float
) -> None:
    more = {"loaders": 2, "stateful": stateful}
    calm = Gang(bench, script=HERE / "stream_job.py", steps=24, more=more).start()
    assert calm.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
    gang = Gang(bench, script=HERE / "stream_job.py", steps=24, more=more).start()
    for step, rank in ((4, 0), (14, 1)):
        gang.reach(step)
        gang.kill(rank)
    assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
    assert gang.losses() == calm.losses()
    assert gang.weights() == calm.weights()


def _seen(bench: Bench, gang: Gang) -> list[tuple[str, str]]:
    """(step, sum of its batch) of the first rank, as it met them."""
    artifact = bench.store.artifacts.find(gang.job().status.outputs["seen"])
    assert artifact is not None
    with bench.deps.blobs.open(artifact.spec.files[0].sha256) as file:
        rows = file.read().decode().splitlines()
    return [(row.split()[0], row.split()[1]) for row in rows]


@pytest.mark.parametrize(
    "more", [pytest.param({}, id="plain"), pytest.param({"ddp": 1, "every": 3}, id="in-ddp")]
)
def test_micro_batches_shared_weights_and_unused_parameters_average_through_a_kill(
    bench: Bench, more: dict[str, float]
) -> None:
    losses, weights = [], []
    for kill in (False, True):
        gang = Gang(bench, script=HERE / "averaging_job.py", steps=20, more=more).start()
        if kill:
            gang.reach(7)
            gang.kill(1)
        done = gang.finish(within_s=120)
        assert done.state == State.SUCCEEDED, f"{done.status} {bench.logs.text()[-2000:]}"
        losses.append(gang.losses())
        weights.append(gang.weights())
        receipts = bench.store.history.receipts(gang.id)
        assert len(receipts) == int(kill)
        assert all(receipt.steps_lost <= receipt.snapshot_every for receipt in receipts)
    assert losses[0] == losses[1]
    assert weights[0] == weights[1]


def test_a_node_that_is_not_trusted_is_left_while_it_still_works(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ["a", "b", "c"], spare=gpus("c", 0, 1), settings=QUICK)
    leave: dict[NodeId, str] = {}
    object.__setattr__(bench.deps, "nodes_to_avoid", lambda: leave)
    try:
        calm = Bench(tmp_path / "calm", ["x"])
        losses, _ = undisturbed(calm, steps=60)
        calm.close()
        bench.nodes = ["a", "b"]
        gang = Gang(bench, steps=60).start()
        gang.reach(8)
        leave[NodeId("b")] = "dcgm reported xid-79 of b"
        assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
        (receipt,) = bench.store.history.receipts(gang.id)
        assert (receipt.code, receipt.rung, receipt.steps_lost <= 1) == ("report", "replace", True)
        assert "xid-79" in receipt.cause
        assert gang.losses() == losses
    finally:
        bench.close()


def test_a_rank_that_always_fails_ends_the_job_with_what_it_last_held(bench: Bench) -> None:
    """The limit on recoveries without progress; the survivors store their state first."""
    object.__setattr__(bench.settings, "fault_limit", 2)
    gang = Gang(bench, steps=100_000, ladder=("in-place", "retry")).start()
    gang.reach(10)
    for _ in range(40):
        gang.kill(1)
        if gang.ended():
            break
        threading.Event().wait(0.03)
    done = gang.finish()
    assert (done.state, done.status.end) == (State.FAILED, EndReason.TOO_MANY_FAULTS)
    assert bench.store.history.newest_checkpoint(gang.id, [0, 1])
