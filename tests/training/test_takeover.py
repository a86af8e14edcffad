"""Adoption of a gang by the next controller."""

from dataclasses import replace

from karez.core.nodes import NodeId
from karez.core.workloads import EndReason
from karez.training.recovery.commands import (
    EndGang,
    ExitRanks,
    Quiesce,
    StartGeneration,
    StartRank,
)
from karez.training.recovery.controller_state import capture
from karez.training.recovery.events import (
    Exited,
    ReadyToRestore,
    Tick,
)
from karez.training.recovery.state import Gang, Phase, Rank, RankPhase
from karez.training.recovery.takeover import adopt
from karez.training.recovery.transitions import advance

A, B = NodeId("a"), NodeId("b")


def test_gang_in_one_generation_is_adopted_without_commands() -> None:
    ranks = tuple(Rank(node=A, phase=RankPhase.LEAVING, committed=5) for _ in range(2))
    gang = Gang(ranks=ranks, generation=3, is_session=True)
    taken, commands = adopt(gang, together=True, now=1.0)
    assert not commands
    assert (taken.phase, taken.generation, taken.max_committed_step) == (Phase.RUNNING, 3, 5)


def test_adopted_gang_with_a_dead_rank_starts_a_new_generation() -> None:
    ranks = tuple(
        Rank(node=A, phase=(RankPhase.ABSENT, RankPhase.LEAVING)[n], committed=5) for n in range(2)
    )
    gang = Gang(ranks=ranks, generation=3, is_session=True)
    taken, commands = adopt(gang, together=True, now=1.0)
    assert taken.generation == 4
    assert Quiesce(rank=1, generation=4) in commands
    assert any(isinstance(c, StartRank) and c.rank == 0 for c in commands)


def test_old_ready_event_of_a_start_is_ignored_when_it_is_read_again() -> None:
    """A new controller reads every node's events from the beginning."""
    ranks = tuple(Rank(node=A, phase=RankPhase.LEAVING, committed=100) for _ in range(3))
    found = Gang(ranks=ranks, is_session=True, generation=3)
    gang, _ = adopt(found, together=False, now=1.0)
    assert gang.generation == 4
    for rank in range(3):
        old = ReadyToRestore(rank=rank, attempt=1, generation=0, steps={0: "start"})
        gang, commands = advance(gang, old, 1.1)
        assert not commands
    for rank in range(3):
        new = ReadyToRestore(rank=rank, attempt=1, generation=4, steps={99: "shm", 100: "shm"})
        gang, commands = advance(gang, new, 1.2)
    assert commands == (StartGeneration(generation=4, step=100),)


def test_next_controller_knows_which_ranks_need_state() -> None:
    ranks = tuple(
        Rank(
            node=A,
            phase=RankPhase.LEAVING,
            committed=100,
            joining=n == 2,
            state_corrupt=n == 1,
        )
        for n in range(3)
    )
    before = Gang(ranks=ranks, is_session=True, generation=3)
    saved = capture(before)
    assert (saved.joining, saved.state_corrupt) == ((2,), (1,))
    bare = replace(
        before, ranks=tuple(replace(r, joining=False, state_corrupt=False) for r in ranks)
    )
    gang, _ = adopt(bare, together=False, now=1.0, saved=saved)
    for rank, steps in enumerate(({100: "shm"}, {100: "shm"}, {})):
        stood = ReadyToRestore(rank=rank, attempt=1, generation=4, steps=steps)
        gang, commands = advance(gang, stood, 1.1)
    assert commands == (StartGeneration(generation=4, step=100, need_state=(1, 2)),)


def test_draining_gang_is_not_started_again_by_the_next_controller() -> None:
    ranks = (
        Rank(node=A),
        Rank(node=A, phase=RankPhase.LEAVING),
    )
    found = Gang(ranks=ranks, is_session=True, generation=3)
    saved = replace(capture(found), phase=Phase.DRAINING)
    gang, commands = adopt(found, together=False, now=1.0, saved=saved)
    assert commands == (ExitRanks(),)
    gang, commands = advance(gang, Tick(), 100.0)
    assert commands == (ExitRanks(),)  # whom it did not reach hears it again
    gang, commands = advance(gang, Exited(rank=0, attempt=1, code=0), 100.5)
    assert not commands
    gang, commands = advance(gang, Exited(rank=1, attempt=1, code=0), 101.0)
    assert commands == (EndGang(reason=EndReason.DONE, detail=""),)
