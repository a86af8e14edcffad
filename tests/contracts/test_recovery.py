"""Real processes, gloo, shared memory, keepers and a foreman: killed in every way, same numbers."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import psutil
import pytest

from karez.core.resources import DeviceKind, Grant, NodeId
from karez.core.settings import Settings
from karez.core.workloads import EndReason, State
from tests.contracts.gang import Bench, Gang, until

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, ["a"])
    yield made
    made.close()
    assert_nothing_left(made)


def assert_nothing_left(bench: Bench) -> None:
    memory = [steward.memory for steward in bench.fabric.stewards.values()]
    assert not [path for path in memory if path.exists()]
    mine = psutil.Process().children(recursive=True)
    left = [p.cmdline() for p in mine if p.status() != psutil.STATUS_ZOMBIE]
    assert not [line for line in left if "karez" in " ".join(line)]


def undisturbed(bench: Bench, **shape: int) -> tuple[dict[tuple[int, int], str], str]:
    gang = Gang(bench, **shape).start()
    assert gang.finish().state == State.SUCCEEDED, bench.logs.text()
    return gang.losses(), gang.weights()


def test_twenty_jobs_with_a_random_kill_each_give_the_same_losses(bench: Bench) -> None:
    losses, weights = undisturbed(bench)
    assert len(losses) == 60
    chance = Random(7)
    for _ in range(20):
        gang = Gang(bench).start()
        gang.reach(chance.randint(1, 27))
        gang.kill(chance.randrange(2))
        assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
        assert gang.losses() == losses
        assert gang.weights() == weights
        (receipt,) = bench.store.history.receipts(gang.id)
        assert receipt.rung == "in-place"
        assert receipt.steps_lost <= 1
        memory = bench.fabric.stewards[NodeId("a")].memory
        until(lambda memory=memory: not list(memory.glob("job-*")))


def test_several_kills_and_a_lost_foreman_in_one_job(bench: Bench) -> None:
    losses, weights = undisturbed(bench, ranks=3, steps=40)
    gang = Gang(bench, ranks=3, steps=40).start()
    gang.reach(5)
    gang.kill(0)
    gang.kill(2)
    gang.reach(12)
    gang.abandon()
    gang.reach(16)  # nobody looks after it, and it goes on
    gang.kill(1)
    gang.start()
    gang.reach(25)
    gang.abandon()
    gang.start()  # found working together: adopted untouched
    generation = gang.job().status.generation
    gang.reach(30)
    assert gang.job().status.generation == generation
    assert gang.finish().state == State.SUCCEEDED
    assert gang.losses() == losses
    assert gang.weights() == weights
    assert all(receipt.steps_lost <= 1 for receipt in bench.store.history.receipts(gang.id))


def test_a_kill_of_the_rendezvous_store_changes_nothing(bench: Bench) -> None:
    """The store lives in no rank: without it a running generation goes on, a new one gets a new."""
    losses, _ = undisturbed(bench)
    gang = Gang(bench).start()
    gang.reach(5)
    steward = bench.fabric.stewards[NodeId("a")]
    for info in steward.processes():
        if info.workload == gang.id and ".store." in info.key:
            steward.kill(info.key)
    gang.reach(10)
    gang.kill(1)
    assert gang.finish().state == State.SUCCEEDED
    assert gang.losses() == losses


def test_a_lost_node_is_replaced_and_its_state_comes_from_a_peer(tmp_path: Path) -> None:
    spare = Grant(node=NodeId("c"), kind=DeviceKind.GPU, devices=((0, 1000),))
    bench = Bench(tmp_path, ["a", "b", "c"], spare=[spare])
    try:
        calm = Bench(tmp_path / "calm", ["x"])
        losses, weights = undisturbed(calm)
        calm.close()
        bench.nodes = ["a", "b"]
        gang = Gang(bench).start()
        gang.reach(8)
        bench.fabric.lose("b")
        assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
        (receipt,) = bench.store.history.receipts(gang.id)
        assert (receipt.rung, receipt.source) == ("replace", "peer")
        assert receipt.steps_lost <= 1
        assert gang.losses() == losses
        assert gang.weights() == weights
    finally:
        bench.close()
    assert_nothing_left(bench)


def test_an_elastic_gang_goes_on_without_a_lost_node(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ["a", "b"])
    try:
        gang = Gang(bench, low=1).start()
        gang.reach(8)
        bench.fabric.lose("b")
        done = gang.finish()
        assert done.state == State.SUCCEEDED, bench.logs.text()[-3000:]
        assert bench.store.history.receipts(gang.id)[0].rung == "shrink"
        assert max(step for step, _ in gang.losses()) == 30
    finally:
        bench.close()


def test_a_job_that_lost_everything_restarts_from_its_stored_checkpoint(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ["a", "b"], settings=Settings(checkpoint_s=0.3, tick_s=0.1))
    try:
        bench.nodes = ["a"]
        gang = Gang(bench, steps=400, work=20).start()
        gang.reach(40)
        bench.fabric.lose("a")
        gang.thread.join(30)  # type: ignore[union-attr]
        waiting = gang.job()
        assert (waiting.state, waiting.status.retries) == (State.QUEUED, 1)
        stored = bench.store.history.newest_checkpoint(gang.id, 2)
        assert stored
        grants = [
            Grant(node=NodeId("b"), kind=DeviceKind.GPU, devices=((n, 1000),)) for n in range(2)
        ]
        bench.store.workloads.place(gang.id, grants, now=1.0)
        gang.start()
        gang.reach(stored[0][0] + 1)
        resumed = [i.said["resumed"]["step"] for i in gang.processes().values()]
        assert min(resumed) >= stored[0][0]
        assert gang.finish().state == State.SUCCEEDED
        assert len(gang.losses()) == 800
    finally:
        bench.close()


def test_a_script_that_fails_ends_the_job_with_its_words(bench: Bench) -> None:
    gang = Gang(bench, steps=-1, work="x")  # type: ignore[arg-type]
    gang.start()
    done = gang.finish()
    # no steps: the session ends at once; a wrong setting would raise in the loop
    assert done.state == State.SUCCEEDED
    broken = Gang(bench, work="x")  # type: ignore[arg-type]
    done = broken.start().finish()
    assert (done.state, done.status.end) == (State.FAILED, EndReason.USER_ERROR)
    assert "TypeError" in bench.logs.text()


def test_a_cancelled_job_stops_and_leaves_nothing(bench: Bench) -> None:
    gang = Gang(bench, steps=10_000).start()
    gang.reach(5)
    bench.store.workloads.request_stop(gang.id, at=1.0)
    done = gang.finish()
    assert (done.state, done.status.end) == (State.CANCELLED, EndReason.CANCELLED)
    until(lambda: not gang.processes())


def test_a_job_that_yields_goes_on_from_the_step_it_stored(bench: Bench) -> None:
    losses, weights = undisturbed(bench, steps=40)
    gang = Gang(bench, steps=40).start()
    gang.reach(10)
    work = bench.store.workloads
    assert work.request_yield(gang.id)
    until(lambda: gang.job().state == State.QUEUED, what="making room")
    assert work.allocations() == {}
    assert gang.processes() == {}
    waits = gang.job()
    assert waits.status.retries == 0
    assert waits.status.ran_s > 0
    kept = bench.store.history.newest_checkpoint(gang.id, 2)
    assert kept
    (step,) = {step for step, _ in kept.values()}
    gang.place()
    gang.start()
    assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
    assert gang.losses() == losses
    assert gang.weights() == weights
    assert step >= 10
