"""Real processes, gloo and shared memory, killed in every way: the numbers stay the same."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from karez.core.devices import DeviceKind
from karez.core.gangs import GangRole
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.resource_requests import ResourceRequest
from karez.core.settings import Settings
from karez.core.workloads import EndReason, State
from tests.contracts.gang import HELD, Bench, Gang, assert_nothing_left, until

pytestmark = pytest.mark.alone


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, ["a"])
    yield made
    made.close()
    assert_nothing_left(made)


def has_no_jobs(memory: Path) -> bool:
    return not list(memory.glob("job-*"))


def undisturbed(
    bench: Bench, *, ranks: int = 2, steps: int = 30
) -> tuple[dict[tuple[int, int], str], str]:
    gang = Gang(bench, ranks=ranks, steps=steps).start()
    assert gang.finish().state == State.SUCCEEDED, bench.logs.text()
    return gang.losses(), gang.weights()


@pytest.mark.deep
def test_twenty_jobs_with_a_random_kill_each_give_the_same_losses(bench: Bench) -> None:
    losses, weights = undisturbed(bench)
    assert len(losses) == 60
    chance, killed = Random(7), 0
    for _ in range(40):
        if killed == 20:
            break
        gang = Gang(bench).start()
        gang.reach(chance.randint(1, 22))
        was_hit = gang.kill(chance.randrange(2))  # it may have ended meanwhile
        assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
        assert gang.losses() == losses
        assert gang.weights() == weights
        if not was_hit or not bench.store.history.receipts(gang.id):
            continue
        killed += 1
        (receipt,) = bench.store.history.receipts(gang.id)
        assert receipt.rung == "in-place"
        assert receipt.steps_lost <= 1
        memory = bench.fabric.stewards[NodeId("a")].memory
        until(partial(has_no_jobs, memory))
    assert killed == 20


def test_several_kills_and_a_lost_controller_in_one_job(bench: Bench) -> None:
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


def test_what_a_script_does_before_its_first_step_is_part_of_the_state(bench: Bench) -> None:
    """It seeds the generators after `track`; a kill within the first step sends all back to it."""
    losses, weights = undisturbed(bench)
    gang = Gang(bench, more={"die_at": 0}).start()
    assert gang.finish().state == State.SUCCEEDED
    assert bench.store.history.receipts(gang.id)
    assert gang.losses() == losses
    assert gang.weights() == weights


@pytest.mark.deep
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
    spare = Grant(node=NodeId("c"), kind=HELD, devices=((0, 1000),))
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
        assert (receipt.rung, receipt.source) == ("replace", "replica")
        assert receipt.steps_lost <= 1
        assert gang.losses() == losses
        assert gang.weights() == weights
    finally:
        bench.close()
    assert_nothing_left(bench)


@pytest.mark.deep
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
        until(lambda: bool(bench.store.history.newest_checkpoint(gang.id, [0, 1])), what="a store")
        bench.fabric.lose("a")
        gang.thread.join(30)  # type: ignore[union-attr]
        waiting = gang.job()
        assert (waiting.state, waiting.status.retries) == (State.QUEUED, 1)
        stored = bench.store.history.newest_checkpoint(gang.id, [0, 1])
        assert stored
        grants = [Grant(node=NodeId("b"), kind=HELD, devices=((n, 1000),)) for n in range(2)]
        bench.store.workloads.place(gang.id, grants, now=1.0)
        gang.start()
        gang.reach(stored[0][0].step + 1)
        resumed = [i.last_messages["resumed"]["step"] for i in gang.processes().values()]
        assert min(resumed) >= stored[0][0].step
        assert gang.finish().state == State.SUCCEEDED
        assert len(gang.losses()) == 800
        (receipt,) = bench.store.history.receipts(gang.id)
        assert (receipt.rung, receipt.source, receipt.code) == ("restart", "storage", "node")
        assert receipt.step_restored == stored[0][0].step
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
    assert work.request_preemption(gang.id)
    until(lambda: gang.job().state == State.QUEUED, what="making room")
    assert work.allocations() == {}
    assert gang.processes() == {}
    waits = gang.job()
    assert waits.status.retries == 0
    assert waits.status.ran_s > 0
    kept = bench.store.history.newest_checkpoint(gang.id, [0, 1])
    assert kept
    (step,) = {part.step for parts in kept.values() for part in parts}
    gang.place()
    gang.start()
    assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
    assert gang.losses() == losses
    assert gang.weights() == weights
    assert step >= 10


def gpus(node: str, *numbers: int, role: str = "") -> list[Grant]:
    return [Grant(node=NodeId(node), kind=HELD, devices=((n, 1000),), role=role) for n in numbers]


def test_a_gang_grows_and_shrinks_while_it_runs_and_loses_no_step(bench: Bench) -> None:
    """New ranks take the state of one that has it; the global batch is the same for any size."""
    gang = Gang(bench, ranks=2, steps=120, low=1).start()
    gang.reach(10)
    targets, work = bench.store.resize_requests, bench.store.workloads
    four = gpus("a", 0, 1, 2, 3)
    targets.request(gang.id, four)
    until(lambda: len(gang.alive()) == 4, what="four ranks")
    assert work.allocations()[gang.id].grants == tuple(four)
    step = max(gang.progress())
    until(lambda: min(gang.progress()) > step, what="a step of all four")
    targets.request(gang.id, four[2:])
    until(lambda: len(gang.alive()) == 2, what="two ranks")
    until(lambda: work.allocations()[gang.id].grants == tuple(four[2:]), what="devices back")
    assert targets.requested(gang.id) is None
    assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
    assert bench.store.history.receipts(gang.id) == []  # nothing was wrong
    steps = sorted({step for step, _ in gang.losses()})
    assert steps == list(range(1, 121))
    by_step = {step: sum(1 for s, _ in gang.losses() if s == step) for step in steps}
    assert max(by_step.values()) == 4


@pytest.mark.deep
def test_a_grown_gang_recovers_like_any_other_and_is_adopted_with_its_seats(bench: Bench) -> None:
    gang = Gang(bench, ranks=2, steps=150, low=1).start()
    gang.reach(5)
    bench.store.resize_requests.request(
        gang.id, gpus("a", 1, 2, 3)
    )  # without the first, with two more
    until(lambda: sorted(gang.alive()) == [1, 2, 3], what="seats 1, 2 and 3")
    gang.reach(max(gang.progress()) + 3)
    gang.kill(2)
    until(lambda: len(bench.store.history.receipts(gang.id)) == 1, what="a receipt")
    gang.abandon()
    gang.start()
    before = max(gang.progress())
    gang.reach(before + 3)
    gang.kill(3)
    assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
    receipts = bench.store.history.receipts(gang.id)
    assert [receipt.ranks for receipt in receipts] == [(2,), (3,)]
    assert all(receipt.steps_lost <= 1 for receipt in receipts)


def test_a_spare_takes_the_place_of_a_lost_node(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ["a", "b", "c"])
    try:
        bench.nodes = ["a", "b"]
        gang = Gang(bench, extra=gpus("c", 0, role="spare")).start()
        gang.reach(8)
        bench.fabric.lose("b")
        assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
        (receipt,) = bench.store.history.receipts(gang.id)
        assert receipt.rung == "replace"
    finally:
        bench.close()


def test_snapshots_are_kept_in_memory_held_on_another_node(tmp_path: Path) -> None:
    """The gang stands on one node; what it needs to go on elsewhere lies in pooled memory."""
    bench = Bench(tmp_path, ["a", "m", "c"], spare=gpus("c", 0, 1))
    try:
        calm = Bench(tmp_path / "calm", ["x"])
        losses, weights = undisturbed(calm)
        calm.close()
        bench.nodes = ["a"]
        pooled = Grant(
            node=NodeId("m"),
            kind=DeviceKind.MEMORY,
            devices=(),
            memory_bytes=64 << 20,
            role="pool",
        )
        need = ResourceRequest(kind=DeviceKind.MEMORY, milli=0, memory_bytes=64 << 20)
        gang = Gang(bench, extra=[pooled], roles=(GangRole(name="pool", each=(need,)),)).start()
        gang.reach(8)
        bench.fabric.lose("a")
        assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
        (receipt,) = bench.store.history.receipts(gang.id)
        assert (receipt.rung, receipt.source) == ("replace", "peer")
        assert receipt.steps_lost <= 1
        assert gang.losses() == losses
        assert gang.weights() == weights
    finally:
        bench.close()


def test_too_little_pooled_memory_is_said_and_nothing_hangs(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ["a", "m"])
    try:
        bench.nodes = ["a"]
        pooled = Grant(
            node=NodeId("m"), kind=DeviceKind.MEMORY, devices=(), memory_bytes=1000, role="pool"
        )
        need = ResourceRequest(kind=DeviceKind.MEMORY, milli=0, memory_bytes=1000)
        gang = Gang(bench, extra=[pooled], roles=(GangRole(name="pool", each=(need,)),)).start()
        done = gang.finish()
        assert (done.state, done.status.end) == (State.FAILED, EndReason.USER_ERROR)
        assert "memory that this job holds" in bench.logs.text()
    finally:
        bench.close()


def test_a_roles_processes_start_and_end_with_the_gang_and_know_each_other(bench: Bench) -> None:
    script = 'echo "$KAREZ_ROLE $KAREZ_ROLE_RANK of $KAREZ_ROLE_SIZE" >> "$0"; sleep 1000'
    words = bench.fabric.shared / "words"
    role = GangRole(name="loader", workers=2, command=("sh", "-c", script, str(words)))
    gang = Gang(bench, extra=gpus("a", 4, 5, role="loader"), roles=(role,)).start()
    gang.reach(5)
    until(words.exists, what="the loaders")
    assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
    assert sorted(words.read_text().splitlines()) == ["loader 0 of 2", "loader 1 of 2"]
    steward = bench.fabric.stewards[NodeId("a")]
    until(lambda: not steward.processes(), what="an end of all")


@pytest.mark.deep
def test_a_role_that_fails_again_and_again_fails_its_gang(bench: Bench) -> None:
    role = GangRole(name="loader", command=("sh", "-c", "exit 7"))
    gang = Gang(bench, steps=100_000, extra=gpus("a", 4, role="loader"), roles=(role,)).start()
    done = gang.finish()
    assert (done.state, done.status.end) == (State.FAILED, EndReason.USER_ERROR)
    assert "loader 0 failed 5 times; the last: ended with code 7" in done.status.reason
