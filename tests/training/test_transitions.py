"""The recovery protocol, event by event and under random faults."""

from dataclasses import replace
from random import Random

import pytest

from karez.core.nodes import NodeId
from karez.core.workloads import EndReason
from karez.training.recovery.commands import (
    EndGang,
    KillRank,
    StartGeneration,
    WriteReceipt,
)
from karez.training.recovery.events import (
    CollectiveFailed,
    Committed,
    Exited,
    Finished,
    Hung,
    NodeEvicted,
    NodeGone,
    Resized,
    Started,
    Tick,
)
from karez.training.recovery.state import Gang, Phase, Rank, RankPhase
from karez.training.recovery.transitions import advance
from tests.training.gang_world import World, finish

A, B = NodeId("a"), NodeId("b")


def test_gang_without_faults_ends_done_in_one_generation() -> None:
    world = World([A, A, B])
    finish(world)
    assert world.ends() == [EndGang(reason=EndReason.DONE, detail="")]
    assert world.gang.generation == 1
    assert not world.receipts()


def test_killed_rank_restarts_in_place_and_other_ranks_keep_their_processes() -> None:
    world = World([A, A])
    for _ in range(3):
        world.work(0)
        world.work(1)
    world.die(1)
    assert world.lives == {0: 1, 1: 2}
    finish(world)
    (receipt,) = world.receipts()
    assert (receipt.fault.rung, receipt.fault.source) == ("in-place", "shm")
    assert (receipt.fault.step_before, receipt.fault.step_restored) == (3, 3)
    assert receipt.generation == 2


def test_at_most_one_step_is_repeated_after_a_kill() -> None:
    """Rank 0 has committed step 4, rank 1 dies just before it does: step 4 is done again."""
    world = World([A, A])
    for _ in range(3):
        world.work(0)
        world.work(1)
    world.work(0)
    world.die(1)
    finish(world)
    (receipt,) = world.receipts()
    assert (receipt.fault.step_before, receipt.fault.step_restored) == (4, 3)
    assert world.redone == 1


def test_lost_node_shrinks_the_gang_when_no_other_node_is_free() -> None:
    world = World([A, B])
    world.work(0)
    world.work(1)
    del world.lives[1]
    del world.group[1]
    world.tell(NodeGone(node=B))
    finish(world)
    assert [number for number, _ in world.gang.active] == [0]
    assert world.receipts()[0].fault.rung == "shrink"
    assert world.ends()[0].reason == EndReason.DONE


def test_events_of_older_generations_and_attempts_change_nothing() -> None:
    world = World([A, A])
    world.work(0)
    world.work(1)
    world.die(0)
    before = world.gang
    for event in (
        Committed(rank=1, generation=1, step=5),
        Exited(rank=0, attempt=1, code=-9),
        CollectiveFailed(rank=1, generation=1, error="late"),
        Finished(rank=1, attempt=1, generation=1),
    ):
        world.tell(event)
    assert world.gang == before


def test_user_error_before_the_first_step_fails_the_job_at_once() -> None:
    world = World([A, A])
    world.die(0, code=1)
    assert world.ends()[0].reason == EndReason.USER_ERROR
    assert KillRank(rank=1, node=A, attempt=1, why="the gang has failed") in world.sent


def test_user_error_repeated_without_a_new_step_fails_the_job() -> None:
    world = World([A, A])
    for _ in range(2):
        world.work(0)
        world.work(1)
    world.die(0, code=1)
    assert not world.ends()
    world.die(0, code=1)
    assert world.ends()[0].reason == EndReason.USER_ERROR


def test_too_many_faults_without_a_new_step_fail_the_job() -> None:
    world = World([A, A])
    for _ in range(100):
        world.die(1)
        if world.ends():
            break
    assert world.ends()[0].reason == EndReason.TOO_MANY_FAULTS


def test_broken_collective_without_another_cause_is_retried() -> None:
    world = World([A, A])
    world.work(0)
    world.work(1)
    world.tell(CollectiveFailed(rank=0, generation=1, error="reset"))
    assert world.gang.generation == 1
    world.tell(Tick(), after_s=1.0)
    assert world.gang.generation == 2
    finish(world)
    assert world.receipts()[0].fault.rung == "retry"


def test_rank_that_does_not_leave_its_step_in_time_is_killed() -> None:
    world = World([A, A, A])
    for rank in range(3):
        world.work(rank)
    frozen = world.lives.pop(2)
    world.die(1)
    world.lives[2] = frozen
    assert world.gang.phase == Phase.QUIESCING
    world.tell(Tick(), after_s=31.0)
    finish(world)
    assert any(isinstance(c, KillRank) and c.rank == 2 for c in world.sent)


def test_plain_script_ends_by_its_exit_code() -> None:
    for code, reason in ((0, EndReason.DONE), (3, EndReason.USER_ERROR), (-9, EndReason.CRASHED)):
        gang = Gang(ranks=(Rank(node=A),))
        gang, _ = advance(gang, Started(rank=0, attempt=1), 0.0)
        _, commands = advance(gang, Exited(rank=0, attempt=1, code=code), 1.0)
        assert [c.reason for c in commands if isinstance(c, EndGang)] == [reason]


@pytest.mark.parametrize("seed", range(150))
def test_gang_under_random_kills_finishes_and_repeats_at_most_one_step_per_fault(
    seed: int,
) -> None:
    chance = Random(seed)
    world = World([A, A, B, B][: chance.randint(1, 4)], total=12)
    faults = 0
    for _ in range(2000):
        if world.ends():
            break
        action = chance.random()
        if action < 0.04 and faults < 8 and world.lives:
            faults += 1
            world.die(chance.choice(sorted(world.lives)))
        elif action < 0.1:
            world.tell(Tick(), after_s=0.1)
        elif world.gang.phase == Phase.DRAINING:
            world.leave()
        elif world.group:
            world.work(chance.choice(sorted(world.group)))
    assert [end.reason for end in world.ends()] == [EndReason.DONE]
    assert world.redone <= faults * len(world.nodes)
    for receipt in world.receipts():
        assert receipt.fault.step_before - receipt.fault.step_restored <= 1
        assert receipt.fault.detected_at <= receipt.fault.decided_at <= receipt.resumed_at


def test_gang_changes_its_size_without_a_fault_and_new_ranks_need_state() -> None:
    world = World(nodes=[A, A], total=8)
    while min(world.highest.get(rank, 0) for rank in (0, 1)) < 3:
        for rank in (0, 1):
            world.work(rank)
    world.tell(Resized(leave=(0,), join={2: B, 3: B}))
    assert world.gang.generation == 2
    goes = [command for command in world.sent if isinstance(command, StartGeneration)]
    assert goes[-1].need_state == (2, 3)
    assert goes[-1].step >= 2
    assert [c.rank for c in world.sent if isinstance(c, KillRank)] == [0]
    assert [number for number, _ in world.gang.active] == [1, 2, 3]
    finish(world)
    assert not [command for command in world.sent if isinstance(command, WriteReceipt)]
    assert world.gang.faults == 0


def test_size_changes_only_in_a_running_session() -> None:
    world = World(nodes=[A, A])
    before = world.gang
    assert before.phase == Phase.RESUMING
    assert advance(before, Resized(leave=(0,)), 1.0)[1] == ()
    plain = replace(before, phase=Phase.RUNNING, is_session=False)
    assert advance(plain, Resized(leave=(0,)), 1.0) == (plain, ())


def test_kill_names_the_attempt_that_hangs_and_not_the_next() -> None:
    world = World([A, A])
    world.work(0)
    world.work(1)
    gang, commands = advance(world.gang, Hung(ranks=(1,), why="it hangs", since=0.5), 1.0)
    assert commands[0] == KillRank(rank=1, node=A, attempt=1, why="it hangs")
    assert gang.ranks[1].attempt == 2


def test_evicted_node_is_kept_by_a_gang_that_may_not_move() -> None:
    ranks = tuple(Rank(node=A, phase=RankPhase.TRAINING, committed=5) for _ in range(2))
    gang = Gang(ranks=ranks, is_session=True, phase=Phase.RUNNING, ladder=("in-place", "restart"))
    assert advance(gang, NodeEvicted(node=A, why="xid"), 1.0) == (gang, ())
