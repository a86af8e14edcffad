"""The recovery protocol, event by event and under random faults."""

from dataclasses import dataclass, field, replace
from random import Random

import pytest

from karez.core.resources import NodeId
from karez.core.workloads import EndReason
from karez.training.recovery.commands import (
    EndGang,
    ExitRanks,
    FindPlaces,
    KillRank,
    Quiesce,
    RecoveryCommand,
    StartGeneration,
    StartRank,
    WriteReceipt,
)
from karez.training.recovery.controller_state import capture
from karez.training.recovery.events import (
    CollectiveFailed,
    Committed,
    Exited,
    Finished,
    Hung,
    NodeEvicted,
    NodeGone,
    PlacesFound,
    ReadyToRestore,
    RecoveryEvent,
    Resized,
    Resumed,
    Shrunk,
    Started,
    Tick,
)
from karez.training.recovery.state import Gang, Phase, Rank
from karez.training.recovery.takeover import adopt, begin
from karez.training.recovery.transitions import advance

A, B = NodeId("a"), NodeId("b")


@dataclass
class World:
    """Ranks that do what the protocol says; a test breaks them."""

    nodes: list[NodeId]
    total: int = 6
    gang: Gang = field(init=False)
    at: float = 0.0
    sent: list[RecoveryCommand] = field(default_factory=list)
    lives: dict[int, int] = field(default_factory=dict)
    holds: dict[int, set[int]] = field(default_factory=dict)
    group: dict[int, tuple[int, int]] = field(default_factory=dict)
    """rank -> (generation, step) while it works"""
    redone: int = 0
    highest: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gang = Gang(ranks=tuple(Rank(node=node) for node in self.nodes))
        self.do(begin(self.gang))

    def tell(self, event: RecoveryEvent, after_s: float = 0.0) -> None:
        self.at += after_s
        self.gang, commands = advance(self.gang, event, self.at)
        self.do(commands)

    def do(self, commands: tuple[RecoveryCommand, ...]) -> None:  # noqa: C901 - one row per command
        self.sent += commands
        for command in commands:
            match command:
                case StartRank(rank=rank, attempt=attempt):
                    self.lives[rank] = attempt
                    self.group.pop(rank, None)
                    self.tell(Started(rank=rank, attempt=attempt))
                    self.stand(rank, 0)
                case Quiesce(rank=rank, generation=generation):
                    if rank in self.lives:
                        self.group.pop(rank, None)
                        self.stand(rank, generation)
                case StartGeneration(generation=generation, step=step):
                    for rank, _ in self.gang.active:
                        if rank in self.lives:
                            self.holds[rank] = {s for s in self.holds.get(rank, set()) if s <= step}
                            self.holds[rank].add(step)
                            self.group[rank] = (generation, step)
                            self.tell(Resumed(rank=rank, generation=generation))
                case KillRank(rank=rank):
                    self.die(rank)
                case FindPlaces(ranks=ranks, rungs=rungs):
                    homes = {n: self.gang.ranks[n].home for n in ranks}
                    if "in-place" in rungs and all(homes.values()):
                        self.tell(PlacesFound(nodes=homes, rung="in-place"))
                    else:
                        rest = tuple(n for n, _ in self.gang.active if n not in ranks)
                        self.tell(Shrunk(keep=rest))

    def stand(self, rank: int, generation: int) -> None:
        steps = {step: "shm" for step in self.holds.get(rank, set())}
        if generation == 0:
            steps.setdefault(0, "start")
        self.tell(
            ReadyToRestore(rank=rank, attempt=self.lives[rank], generation=generation, steps=steps)
        )

    def work(self, rank: int) -> None:
        """One rank completes its step; nobody may be more than one ahead."""
        if rank not in self.group:
            return
        generation, step = self.group[rank]
        others = [at for number, (_, at) in self.group.items() if number != rank]
        everyone = len(self.group) == len(self.gang.active)
        if step >= self.total or not everyone or any(at < step for at in others):
            return
        self.redone += step + 1 <= self.highest.get(rank, 0)
        self.highest[rank] = max(self.highest.get(rank, 0), step + 1)
        held = self.holds[rank]
        held.add(step + 1)
        held -= {s for s in held if s < step}
        self.group[rank] = (generation, step + 1)
        self.tell(Committed(rank=rank, generation=generation, step=step + 1))
        if step + 1 == self.total:
            self.tell(Finished(rank=rank, attempt=self.lives[rank], generation=generation))

    def die(self, rank: int, code: int = -9) -> None:
        if rank in self.lives:
            attempt = self.lives.pop(rank)
            self.group.pop(rank, None)
            self.tell(Exited(rank=rank, attempt=attempt, code=code))

    def leave(self) -> None:
        for rank, attempt in list(self.lives.items()):
            self.tell(Exited(rank=rank, attempt=attempt, code=0))

    def ends(self) -> list[EndGang]:
        return [command for command in self.sent if isinstance(command, EndGang)]

    def receipts(self) -> list[WriteReceipt]:
        return [command for command in self.sent if isinstance(command, WriteReceipt)]


def finish(world: World) -> None:
    for _ in range(200):
        for rank in list(world.group):
            world.work(rank)
        if world.gang.phase == Phase.DRAINING:
            world.leave()
        if world.ends():
            return
        world.tell(Tick(), after_s=0.05)
    raise AssertionError(f"stuck in {world.gang}")


def test_a_gang_without_faults_runs_once_through() -> None:
    world = World([A, A, B])
    finish(world)
    assert world.ends() == [EndGang(reason=EndReason.DONE, detail="")]
    assert world.gang.generation == 1
    assert not world.receipts()


def test_a_killed_rank_comes_back_in_place_and_the_others_keep_their_processes() -> None:
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


def test_at_most_one_step_is_done_again() -> None:
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


def test_a_lost_node_shrinks_the_gang_where_nothing_else_is_free() -> None:
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


def test_messages_of_older_generations_and_lives_change_nothing() -> None:
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


def test_an_error_of_the_users_own_fails_the_job_at_once() -> None:
    world = World([A, A])
    world.die(0, code=1)
    assert world.ends()[0].reason == EndReason.USER_ERROR
    assert KillRank(rank=1, node=A, attempt=1, why="the gang has failed") in world.sent


def test_an_error_that_comes_again_without_a_new_step_fails_the_job() -> None:
    world = World([A, A])
    for _ in range(2):
        world.work(0)
        world.work(1)
    world.die(0, code=1)
    assert not world.ends()
    world.die(0, code=1)
    assert world.ends()[0].reason == EndReason.USER_ERROR


def test_endless_faults_end() -> None:
    world = World([A, A])
    for _ in range(100):
        world.die(1)
        if world.ends():
            break
    assert world.ends()[0].reason == EndReason.TOO_MANY_FAULTS


def test_a_broken_collective_alone_is_retried_after_a_moment() -> None:
    world = World([A, A])
    world.work(0)
    world.work(1)
    world.tell(CollectiveFailed(rank=0, generation=1, error="reset"))
    assert world.gang.generation == 1
    world.tell(Tick(), after_s=1.0)
    assert world.gang.generation == 2
    finish(world)
    assert world.receipts()[0].fault.rung == "retry"


def test_a_rank_that_does_not_leave_its_step_is_killed() -> None:
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


def test_a_plain_script_ends_by_its_exit_codes() -> None:
    for code, reason in ((0, EndReason.DONE), (3, EndReason.USER_ERROR), (-9, EndReason.CRASHED)):
        gang = Gang(ranks=(Rank(node=A),))
        gang, _ = advance(gang, Started(rank=0, attempt=1), 0.0)
        _, commands = advance(gang, Exited(rank=0, attempt=1, code=code), 1.0)
        assert [c.reason for c in commands if isinstance(c, EndGang)] == [reason]


def test_a_gang_that_works_together_is_adopted_untouched() -> None:
    ranks = tuple(Rank(node=A, alive=True, started_once=True, committed=5) for _ in range(2))
    gang = Gang(ranks=ranks, generation=3, is_session=True)
    taken, commands = adopt(gang, together=True, now=1.0)
    assert not commands
    assert (taken.phase, taken.generation, taken.max_committed_step) == (Phase.RUNNING, 3, 5)


def test_a_gang_found_in_disorder_starts_a_new_generation() -> None:
    ranks = tuple(Rank(node=A, alive=n > 0, started_once=True, committed=5) for n in range(2))
    gang = Gang(ranks=ranks, generation=3, is_session=True)
    taken, commands = adopt(gang, together=True, now=1.0)
    assert taken.generation == 4
    assert Quiesce(rank=1, generation=4) in commands
    assert any(isinstance(c, StartRank) and c.rank == 0 for c in commands)


@pytest.mark.parametrize("seed", range(150))
def test_under_random_kills_every_gang_finishes_and_redoes_at_most_a_step_per_fault(
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


def test_a_gang_changes_its_size_without_a_fault_and_new_ranks_bring_no_state() -> None:
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


def test_a_size_is_changed_only_while_all_is_well() -> None:
    world = World(nodes=[A, A])
    before = world.gang
    assert advance(replace(before, phase=Phase.PLACING), Resized(leave=(0,)), 1.0)[1] == ()
    plain = replace(before, phase=Phase.RUNNING, is_session=False)
    assert advance(plain, Resized(leave=(0,)), 1.0) == (plain, ())


def test_what_a_rank_said_when_it_was_new_does_not_count_when_it_is_heard_again() -> None:
    """A new foreman hears every node's events from the beginning."""
    ranks = tuple(Rank(node=A, alive=True, started_once=True, committed=100) for _ in range(3))
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


def test_a_kill_is_meant_for_the_life_that_hangs_and_not_for_the_next() -> None:
    world = World([A, A])
    world.work(0)
    world.work(1)
    gang, commands = advance(world.gang, Hung(ranks=(1,), why="it hangs", since=0.5), 1.0)
    assert commands[0] == KillRank(rank=1, node=A, attempt=1, why="it hangs")
    assert gang.ranks[1].attempt == 2


def test_a_new_foreman_knows_who_has_no_state_of_its_own() -> None:
    ranks = tuple(
        Rank(
            node=A,
            alive=True,
            started_once=True,
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


def test_a_gang_that_was_leaving_is_not_started_again_by_a_new_foreman() -> None:
    ranks = (
        Rank(node=A, alive=False, started_once=True),
        Rank(node=A, alive=True, started_once=True),
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


def test_a_node_is_not_left_by_a_gang_that_may_go_nowhere_else() -> None:
    ranks = tuple(Rank(node=A, alive=True, started_once=True, committed=5) for _ in range(2))
    gang = Gang(ranks=ranks, is_session=True, phase=Phase.RUNNING, ladder=("in-place", "restart"))
    assert advance(gang, NodeEvicted(node=A, why="xid"), 1.0) == (gang, ())
