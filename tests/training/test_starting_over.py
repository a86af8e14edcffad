"""Deadlines of a start, receipts of jobs that start over, and gangs that change their size."""

from dataclasses import replace

from karez.core.workloads import EndReason
from karez.training import gang as w
from karez.training.cuts import Cut
from karez.training.memo import inherited, memo_of
from karez.training.protocol import adopt, advance
from tests.training.test_protocol import A, B, World, finish


def test_a_plain_script_may_run_for_as_long_as_it_likes() -> None:
    """It never stands: nothing but its exit says that it is done."""
    gang = w.Gang(ranks=(w.Rank(node=A), w.Rank(node=A)))
    gang, _ = advance(gang, w.Started(rank=0, life=1), 0.0)
    waiting, commands = advance(gang, w.Tick(), 400.0)
    assert [c.reason for c in commands if isinstance(c, w.End)] == [EndReason.START_FAILED]
    assert waiting.fault is not None
    assert "rank 1 was not ready" in waiting.fault.cause
    gang, _ = advance(gang, w.Started(rank=1, life=1), 10.0)
    assert advance(gang, w.Tick(), 1e6) == (gang, ())


def test_ranks_of_a_session_have_their_time_from_when_the_first_stands() -> None:
    gang = w.Gang(ranks=(w.Rank(node=A), w.Rank(node=A)))
    for rank in (0, 1):
        gang, _ = advance(gang, w.Started(rank=rank, life=1), 0.0)
    stood = w.Stood(rank=0, life=1, generation=0, steps={0: "start"})
    gang, _ = advance(gang, stood, 1000.0)  # a large model takes its time
    same, commands = advance(gang, w.Tick(), 1290.0)
    assert (same, commands) == (gang, ())
    late, commands = advance(gang, w.Tick(), 1000.0 + 2 * 1000.0 + 1.0)
    assert late.phase == w.Phase.FAILED
    gang, commands = advance(gang, replace(stood, rank=1), 1300.0)
    assert isinstance(commands[0], w.Go)
    for rank in (0, 1):
        gang, _ = advance(gang, w.Resumed(rank=rank, generation=1), 1301.0)
    assert advance(gang, w.Tick(), 1e6) == (gang, ())  # how long a step takes is judged elsewhere


def test_a_job_that_starts_over_has_a_receipt_for_it() -> None:
    world = World([A, B])
    for _ in range(3):
        world.work(0)
        world.work(1)
    lost, _ = advance(world.gang, w.NodeGone(node=B), 5.0)
    failed, commands = advance(lost, w.Moved(nodes={}), 6.0)
    assert [c.reason for c in commands if isinstance(c, w.End)] == [EndReason.NODE_LOST]
    fault = inherited(memo_of(failed), 9.0, 3, 4.0)
    assert fault is not None
    assert (fault.rung, fault.code, fault.step_before) == ("restart", "node", 3)
    assert fault.cause.startswith("node b was lost; no devices are left")

    again = World([A, A])
    assert again.gang.phase == w.Phase.RESUMING
    again.gang = replace(again.gang, fault=fault)
    finish(again)
    (receipt,) = again.receipts()
    assert receipt.fault.rung == "restart"


def test_what_was_stopped_on_purpose_has_nothing_to_recover_from() -> None:
    world = World([A])
    world.work(0)
    stopped = memo_of(replace(world.gang, phase=w.Phase.DONE))
    assert inherited(stopped, 9.0, 1, 4.0) is None
    assert inherited(None, 9.0, 0, 9.0) is None
    gone = inherited(memo_of(world.gang), 9.0, 1, 4.0)
    assert gone is not None
    assert (gone.code, gone.step_before, gone.detected_at) == ("control", 1, 4.0)


def test_a_plain_script_that_started_over_has_its_receipt_once_it_runs() -> None:
    gang = w.Gang(ranks=(w.Rank(node=A),))
    gang, _ = advance(gang, w.Started(rank=0, life=1), 0.0)
    failed, _ = advance(gang, w.NodeGone(node=A), 50.0)
    fault = inherited(memo_of(failed), 60.0, 0, 60.0)
    again = w.Gang(ranks=(w.Rank(node=B),), generation=2, since=70.0, fault=fault)
    again, _ = advance(again, w.Started(rank=0, life=1), 71.0)
    assert advance(again, w.Tick(), 80.0) == (again, ())
    again, commands = advance(again, w.Tick(), 371.0)
    (receipt,) = commands
    assert isinstance(receipt, w.WriteReceipt)
    assert (receipt.fault.rung, receipt.fault.detected_at) == ("restart", 50.0)
    assert receipt.resumed_at == 70.0


def test_a_hundred_ranks_that_die_at_once_are_one_fault() -> None:
    world = World([A] * 60 + [B] * 60)
    for rank in range(120):
        world.work(rank)
    for rank in range(100):
        life = world.lives[rank]
        world.gang, _ = advance(world.gang, w.Exited(rank=rank, life=life, code=-9), 1.0)
    assert world.gang.phase in (w.Phase.QUIESCING, w.Phase.PLACING)
    assert world.gang.faults == 1


def test_a_gang_that_starts_over_with_fewer_and_is_hit_again_keeps_what_it_restored() -> None:
    before = (Cut(after=-1, seats=(0, 1, 2, 3), born=1),)
    gang = w.Gang(ranks=tuple(w.Rank(node=A) for _ in range(3)), generation=5, cuts=before)
    for rank in range(3):
        gang, _ = advance(gang, w.Started(rank=rank, life=1), 0.0)
    for rank in range(3):
        stood = w.Stood(
            rank=rank, life=1, generation=0, steps={150: "storage", 0: "start"}, sharded=True
        )
        gang, commands = advance(gang, stood, 1.0)
    assert commands == (w.Go(generation=5, step=150),)
    for rank in range(3):
        gang, _ = advance(gang, w.Resumed(rank=rank, generation=5), 2.0)
    gang, _ = advance(gang, w.Exited(rank=1, life=1, code=-9), 3.0)
    for rank, life, generation in ((0, 1, 6), (2, 1, 6), (1, 2, 0)):
        source = "storage" if rank == 1 else "shm"
        stood = w.Stood(
            rank=rank, life=life, generation=generation, steps={150: source}, sharded=True,
            born={} if rank == 1 else {150: 5},
        )  # fmt: skip
        gang, commands = advance(gang, stood, 4.0)
    assert commands == (w.Go(generation=6, step=150),)


def test_who_was_asked_for_others_shards_is_not_stuck() -> None:
    cuts = (Cut(after=-1, seats=(0, 1, 2), born=1), Cut(after=10, seats=(0, 1), born=2))
    ranks = (w.Rank(node=A, settled=True), w.Rank(node=A), w.Rank(node=A, retired=True))
    gang = w.Gang(
        ranks=ranks, generation=3, cuts=cuts, is_session=True, is_sharded=True, since=0.0,
        phase=w.Phase.QUIESCING,
    )  # fmt: skip
    own = {"steps": {10: "shm", 11: "shm"}, "born": {10: 1, 11: 2}, "sharded": True}
    gang, _ = advance(gang, w.Stood(rank=0, life=1, generation=3, **own), 1.0)
    gang, commands = advance(gang, w.Stood(rank=1, life=1, generation=0, **own), 8.0)
    assert [c.seats for c in commands if isinstance(c, w.Seek)] == [(2,), (2,)]
    assert advance(gang, w.Tick(), 100.0) == (gang, ())
    cleared = replace(gang.ranks[2], cleared=True)
    gang = replace(gang, ranks=(*gang.ranks[:2], cleared))
    gang, _ = advance(gang, w.Stood(rank=0, life=1, generation=3, **own), 9.0)
    gang, commands = advance(gang, w.Stood(rank=1, life=1, generation=3, **own), 9.0)
    assert commands == (w.Go(generation=3, step=11),)  # nobody is asked for what was cleared


def test_control_is_replaced_while_a_job_starts() -> None:
    starting = w.Gang(ranks=(w.Rank(node=A, alive=True),), generation=2)
    fault = w.Fault(cause="x", ranks=(), rung="restart", detected_at=0.0, step_before=0)
    memo = replace(memo_of(starting), fault=fault, phase=w.Phase.QUIESCING, slowest_start_s=900.0)
    gang, commands = adopt(starting, together=True, now=10.0, memo=memo)
    assert (gang.phase, gang.slowest_start_s, commands) == (w.Phase.QUIESCING, 900.0, ())
    stood = w.Stood(rank=0, life=1, generation=0, steps={0: "start"})
    _, commands = advance(gang, stood, 20.0)
    assert isinstance(commands[0], w.Go)
    plain, commands = advance(gang, w.Tick(), 400.0)
    assert [type(c) for c in commands] == [w.WriteReceipt]
    assert plain.fault is None


def test_those_that_joined_go_on_where_none_of_the_others_is_left() -> None:
    ranks = (
        w.Rank(node=A, retired=True),
        w.Rank(node=B, joining=True, settled=True, alive=True),
    )
    gang = w.Gang(ranks=ranks, is_session=True, generation=4)
    stood = w.Stood(rank=1, life=1, generation=4, steps={40: "shm", 30: "storage"})
    _, commands = advance(gang, stood, 1.0)
    assert commands == (w.Go(generation=4, step=40),)
