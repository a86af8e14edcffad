"""Deadlines of a start, receipts of jobs that start over, and gangs that change their size."""

from dataclasses import replace
from functools import partial

from karez.core.errors import DEVICE_FAULT
from karez.core.workloads import EndReason
from karez.training.recovery.commands import (
    EndGang,
    FindPlaces,
    QueryShards,
    StartGeneration,
    WriteReceipt,
)
from karez.training.recovery.controller_state import capture, inherited_fault
from karez.training.recovery.events import (
    Exited,
    NodeGone,
    PlacesFound,
    ReadyToRestore,
    Resumed,
    Started,
    Tick,
)
from karez.training.recovery.shard_layouts import ShardLayout
from karez.training.recovery.state import Fault, Gang, Phase, Rank, RankPhase
from karez.training.recovery.takeover import adopt
from karez.training.recovery.transitions import advance
from tests.training.gang_world import A, B, World, finish


def test_plain_script_has_no_time_limit_once_it_runs() -> None:
    """It never stands: nothing but its exit says that it is done."""
    gang = Gang(ranks=(Rank(node=A), Rank(node=A)))
    gang, _ = advance(gang, Started(rank=0, attempt=1), 0.0)
    waiting, commands = advance(gang, Tick(), 400.0)
    assert [c.reason for c in commands if isinstance(c, EndGang)] == [EndReason.START_FAILED]
    assert waiting.fault is not None
    assert "rank 1 was not ready" in waiting.fault.cause
    gang, _ = advance(gang, Started(rank=1, attempt=1), 10.0)
    assert advance(gang, Tick(), 1e6) == (gang, ())


def test_start_deadline_of_a_session_counts_from_its_first_ready_rank() -> None:
    gang = Gang(ranks=(Rank(node=A), Rank(node=A)))
    for rank in (0, 1):
        gang, _ = advance(gang, Started(rank=rank, attempt=1), 0.0)
    stood = ReadyToRestore(rank=0, attempt=1, generation=0, steps={0: "start"})
    gang, _ = advance(gang, stood, 1000.0)  # a large model takes its time
    same, commands = advance(gang, Tick(), 1290.0)
    assert (same, commands) == (gang, ())
    late, commands = advance(gang, Tick(), 1000.0 + 2 * 1000.0 + 1.0)
    assert late.phase == Phase.FAILED
    gang, commands = advance(gang, replace(stood, rank=1), 1300.0)
    assert isinstance(commands[0], StartGeneration)
    for rank in (0, 1):
        gang, _ = advance(gang, Resumed(rank=rank, generation=1), 1301.0)
    assert advance(gang, Tick(), 1e6) == (gang, ())  # how long a step takes is judged elsewhere


def test_restarted_job_gets_a_receipt() -> None:
    world = World([A, B])
    for _ in range(3):
        world.work(0)
        world.work(1)
    lost, _ = advance(world.gang, NodeGone(node=B), 5.0)
    failed, commands = advance(lost, PlacesFound(nodes={}), 6.0)
    assert [c.reason for c in commands if isinstance(c, EndGang)] == [EndReason.NODE_LOST]
    fault = inherited_fault(capture(failed), 9.0, 3, 4.0)
    assert fault is not None
    assert (fault.rung, fault.code, fault.step_before) == ("restart", "node", 3)
    assert fault.cause.startswith("node b was lost; no devices are left")

    again = World([A, A])
    assert again.gang.phase == Phase.RESUMING
    again.gang = replace(again.gang, fault=fault)
    finish(again)
    (receipt,) = again.receipts()
    assert receipt.fault.rung == "restart"


def test_job_stopped_on_purpose_inherits_no_fault() -> None:
    world = World([A])
    world.work(0)
    stopped = capture(replace(world.gang, phase=Phase.DONE))
    assert inherited_fault(stopped, 9.0, 1, 4.0) is None
    assert inherited_fault(None, 9.0, 0, 9.0) is None
    gone = inherited_fault(capture(world.gang), 9.0, 1, 4.0)
    assert gone is not None
    assert (gone.code, gone.step_before, gone.detected_at) == ("control", 1, 4.0)


def test_restarted_plain_script_gets_its_receipt_once_it_runs() -> None:
    gang = Gang(ranks=(Rank(node=A),))
    gang, _ = advance(gang, Started(rank=0, attempt=1), 0.0)
    failed, _ = advance(gang, NodeGone(node=A), 50.0)
    fault = inherited_fault(capture(failed), 60.0, 0, 60.0)
    again = Gang(ranks=(Rank(node=B),), generation=2, since=70.0, fault=fault)
    again, _ = advance(again, Started(rank=0, attempt=1), 71.0)
    assert advance(again, Tick(), 80.0) == (again, ())
    again, commands = advance(again, Tick(), 371.0)
    (receipt,) = commands
    assert isinstance(receipt, WriteReceipt)
    assert (receipt.fault.rung, receipt.fault.detected_at) == ("restart", 50.0)
    assert receipt.resumed_at == 70.0


def test_plain_script_that_fails_again_has_a_receipt_for_the_restart_before() -> None:
    gang = Gang(ranks=(Rank(node=A),))
    gang, _ = advance(gang, Started(rank=0, attempt=1), 0.0)
    failed, first = advance(gang, Exited(rank=0, attempt=1, code=-9), 50.0)
    assert not any(isinstance(command, WriteReceipt) for command in first)
    fault = inherited_fault(capture(failed), 60.0, 0, 60.0)
    again = Gang(ranks=(Rank(node=A),), generation=2, since=70.0, fault=fault)
    again, _ = advance(again, Started(rank=0, attempt=1), 71.0)
    failed, commands = advance(again, Exited(rank=0, attempt=1, code=-11), 80.0)
    (receipt,) = (command for command in commands if isinstance(command, WriteReceipt))
    assert (receipt.fault.cause, receipt.resumed_at) == ("rank 0 killed by signal 9", 70.0)
    last = inherited_fault(capture(failed), 90.0, 0, 90.0)
    assert last is not None
    assert last.cause == "rank 0 killed by signal 11"


def test_hundred_ranks_that_die_at_once_count_as_one_fault() -> None:
    world = World([A] * 60 + [B] * 60)
    for rank in range(120):
        world.work(rank)
    for rank in range(100):
        attempt = world.lives[rank]
        world.gang, _ = advance(world.gang, Exited(rank=rank, attempt=attempt, code=-9), 1.0)
    assert world.gang.phase in (Phase.QUIESCING, Phase.PLACING)
    assert world.gang.faults == 1


def test_gang_restarted_with_fewer_ranks_keeps_its_restored_step_after_another_fault() -> None:
    before = (ShardLayout(after=-1, ranks=(0, 1, 2, 3), created_generation=1),)
    gang = Gang(ranks=tuple(Rank(node=A) for _ in range(3)), generation=5, shard_layouts=before)
    for rank in range(3):
        gang, _ = advance(gang, Started(rank=rank, attempt=1), 0.0)
    for rank in range(3):
        stood = ReadyToRestore(
            rank=rank, attempt=1, generation=0, steps={150: "storage", 0: "start"}, sharded=True
        )
        gang, commands = advance(gang, stood, 1.0)
    assert commands == (StartGeneration(generation=5, step=150),)
    for rank in range(3):
        gang, _ = advance(gang, Resumed(rank=rank, generation=5), 2.0)
    gang, _ = advance(gang, Exited(rank=1, attempt=1, code=-9), 3.0)
    for rank, attempt, generation in ((0, 1, 6), (2, 1, 6), (1, 2, 0)):
        source = "storage" if rank == 1 else "shm"
        stood = ReadyToRestore(
            rank=rank,
            attempt=attempt,
            generation=generation,
            steps={150: source},
            sharded=True,
            created_generation={} if rank == 1 else {150: 5},
        )
        gang, commands = advance(gang, stood, 4.0)
    assert commands == (StartGeneration(generation=6, step=150),)


def test_rank_that_answers_a_shard_query_is_not_killed_as_stuck() -> None:
    cuts = (
        ShardLayout(after=-1, ranks=(0, 1, 2), created_generation=1),
        ShardLayout(after=10, ranks=(0, 1), created_generation=2),
    )
    ranks = (
        Rank(node=A, phase=RankPhase.LEAVING),
        Rank(node=A),
        Rank(node=A, phase=RankPhase.RETIRED),
    )
    gang = Gang(
        ranks=ranks,
        generation=3,
        shard_layouts=cuts,
        is_session=True,
        is_sharded=True,
        since=0.0,
        phase=Phase.QUIESCING,
    )
    stood = partial(
        ReadyToRestore,
        attempt=1,
        steps={10: "shm", 11: "shm"},
        created_generation={10: 1, 11: 2},
        sharded=True,
    )
    gang, _ = advance(gang, stood(rank=0, generation=3), 1.0)
    gang, commands = advance(gang, stood(rank=1, generation=0), 8.0)
    assert [c.departed for c in commands if isinstance(c, QueryShards)] == [(2,), (2,)]
    assert advance(gang, Tick(), 100.0) == (gang, ())
    cleared = replace(gang.ranks[2], phase=RankPhase.FORGOTTEN)
    gang = replace(gang, ranks=(*gang.ranks[:2], cleared))
    gang, _ = advance(gang, stood(rank=0, generation=3), 9.0)
    gang, commands = advance(gang, stood(rank=1, generation=3), 9.0)
    assert commands == (
        StartGeneration(generation=3, step=11),
    )  # nobody is asked for what was cleared


def test_controller_is_replaced_while_a_job_starts() -> None:
    starting = Gang(ranks=(Rank(node=A, phase=RankPhase.STARTED),), generation=2)
    fault = Fault(cause="x", ranks=(), rung="restart", detected_at=0.0, step_before=0)
    saved = replace(capture(starting), fault=fault, phase=Phase.QUIESCING, slowest_start_s=900.0)
    gang, commands = adopt(starting, together=True, now=10.0, saved=saved)
    assert (gang.phase, gang.slowest_start_s, commands) == (Phase.QUIESCING, 900.0, ())
    stood = ReadyToRestore(rank=0, attempt=1, generation=0, steps={0: "start"})
    _, commands = advance(gang, stood, 20.0)
    assert isinstance(commands[0], StartGeneration)
    plain, commands = advance(gang, Tick(), 400.0)
    assert [type(c) for c in commands] == [WriteReceipt]
    assert plain.fault is None


def test_a_restarted_script_without_a_session_that_ends_soon_has_its_receipt_too() -> None:
    fault = Fault(cause="x", ranks=(), rung="restart", detected_at=0.0, step_before=0)
    ranks = (Rank(node=A, phase=RankPhase.STARTED),)
    gang = Gang(ranks=ranks, since=5.0, fault=fault)
    done, commands = advance(gang, Exited(rank=0, attempt=1, code=0), 20.0)
    assert [type(command) for command in commands] == [WriteReceipt, EndGang]
    assert isinstance(commands[0], WriteReceipt)
    assert (commands[0].resumed_at, commands[0].fault.source) == (5.0, "start")
    assert done.fault is None


def test_joined_ranks_continue_when_all_earlier_ranks_have_left() -> None:
    ranks = (
        Rank(node=A, phase=RankPhase.RETIRED),
        Rank(node=B, joining=True, phase=RankPhase.LEAVING),
    )
    gang = Gang(ranks=ranks, is_session=True, generation=4)
    stood = ReadyToRestore(rank=1, attempt=1, generation=4, steps={40: "shm", 30: "storage"})
    _, commands = advance(gang, stood, 1.0)
    assert commands == (StartGeneration(generation=4, step=40),)


def test_a_rank_whose_device_failed_goes_elsewhere_and_a_second_time_the_job_starts_over() -> None:
    world = World([A, B])
    world.gang = replace(world.gang, ladder=("retry", "in-place", "replace", "restart"))
    for _ in range(2):
        world.work(0)
        world.work(1)
    failed = Exited(rank=1, attempt=1, code=DEVICE_FAULT, error="DeviceLost: npu:0 stopped working")
    moved, commands = advance(world.gang, failed, 5.0)
    assert moved.fault is not None
    assert moved.fault.code == "device"
    (search,) = [command for command in commands if isinstance(command, FindPlaces)]
    assert search.rungs[0] == "replace"
    placed, _ = advance(moved, PlacesFound(nodes={1: B}, rung="in-place"), 6.0)
    again, commands = advance(placed, replace(failed, attempt=2), 7.0)
    assert again.phase == Phase.FAILED
    assert [c.reason for c in commands if isinstance(c, EndGang)] == [EndReason.NODE_LOST]
