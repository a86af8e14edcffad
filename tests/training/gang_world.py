"""A world of ranks that obey the recovery protocol's commands, for tests of its transitions."""

from dataclasses import dataclass, field

from karez.core.nodes import NodeId
from karez.training.recovery.commands import (
    EndGang,
    FindPlaces,
    KillRank,
    Quiesce,
    RecoveryCommand,
    StartGeneration,
    StartRank,
    WriteReceipt,
)
from karez.training.recovery.events import (
    Committed,
    Exited,
    Finished,
    PlacesFound,
    ReadyToRestore,
    RecoveryEvent,
    Resumed,
    Shrunk,
    Started,
    Tick,
)
from karez.training.recovery.state import Gang, Phase, Rank
from karez.training.recovery.takeover import begin
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
