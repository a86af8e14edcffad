"""Ranks of a sharded gang with their own memory and one peer's copies, for tests."""

from dataclasses import dataclass, field

from karez.core.nodes import NodeId
from karez.training.recovery.commands import (
    DropReplicas,
    EndGang,
    FindPlaces,
    KillRank,
    QueryShards,
    Quiesce,
    RecoveryCommand,
    StartGeneration,
    StartRank,
)
from karez.training.recovery.controller_state import capture
from karez.training.recovery.events import (
    Committed,
    Exited,
    Finished,
    NodeGone,
    PlacesFound,
    ReadyToRestore,
    RecoveryEvent,
    Resumed,
    Shrunk,
    Started,
)
from karez.training.recovery.state import Gang, Rank, RankPhase
from karez.training.recovery.takeover import adopt, begin
from karez.training.recovery.transitions import advance

Shards = dict[int, tuple[tuple[int, ...], int]]
"""Step -> the ranks that it was split over, and the generation in which it was kept."""


@dataclass
class Ranks:
    """Ranks with their own memory and one peer's each; nodes are lost with what they hold."""

    nodes: list[str]
    total: int
    gang: Gang = field(init=False)
    at: float = 0.0
    lives: dict[int, int] = field(default_factory=dict)
    own: dict[int, Shards] = field(default_factory=dict)
    sent: dict[int, tuple[str, Shards]] = field(default_factory=dict)
    """rank -> the node that holds a copy, and the copies."""
    where: dict[int, str] = field(default_factory=dict)
    group: dict[int, int] = field(default_factory=dict)
    now: tuple[int, ...] = ()
    lost_nodes: set[str] = field(default_factory=set)
    ends: list[EndGang] = field(default_factory=list)
    reached: int = 0
    gone_back: int = 0
    may_return: bool = True
    started: set[int] = field(default_factory=set)
    """Ranks whose process has had a state."""
    again: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        ranks = tuple(Rank(node=NodeId(node)) for node in self.nodes)
        self.gang = Gang(ranks=ranks)
        self.do(begin(self.gang))

    def tell(self, event: RecoveryEvent) -> None:
        self.at += 0.001
        self.gang, commands = advance(self.gang, event, self.at)
        self.do(commands)

    def do(self, commands: tuple[RecoveryCommand, ...]) -> None:  # noqa: C901 - one row per command
        for command in commands:
            match command:
                case StartRank(rank=rank, attempt=attempt, node=node):
                    self.lives[rank], self.where[rank] = attempt, node
                    self.group.pop(rank, None)
                    self.started.discard(rank)
                    self.again.discard(rank)
                    self.tell(Started(rank=rank, attempt=attempt))
                    self.stand(rank, 0)
                case Quiesce(rank=rank, generation=generation) if rank in self.lives:
                    self.group.pop(rank, None)
                    self.stand(rank, generation)
                case QueryShards(rank=rank, generation=generation, departed=indices):
                    found = {
                        index: {step: born for step, (_, born) in self.kept(index).items()}
                        for index in indices
                    }
                    self.stand(rank, generation, found)
                case StartGeneration():
                    self.go(command)
                case DropReplicas(departed=indices):
                    for index in indices:
                        self.own.pop(index, None)
                        self.sent.pop(index, None)
                case KillRank(rank=rank):
                    self.die(rank)
                case FindPlaces(ranks=ranks, rungs=rungs):
                    homes = {n: self.gang.ranks[n].home for n in ranks}
                    left = tuple(n for n, _ in self.gang.active if n not in ranks)
                    returns = "in-place" in rungs and all(homes.values())
                    if returns and (self.may_return or not left):
                        self.tell(PlacesFound(nodes=homes, rung="in-place"))
                    else:
                        self.tell(Shrunk(keep=left) if left else PlacesFound(nodes={}))
                case EndGang():
                    self.ends.append(command)

    def kept(self, rank: int) -> Shards:
        """What keepers have of a rank: left in its node's memory, or sent to another node."""
        there = self.own.get(rank, {}) if self.where[rank] not in self.lost_nodes else {}
        node, copies = self.sent.get(rank, ("", {}))
        found = dict(copies) if node and node not in self.lost_nodes else {}
        for step, shard in there.items():
            found[step] = max(found.get(step, shard), shard, key=lambda one: one[1])
        return found

    def stand(
        self, rank: int, generation: int, found: dict[int, dict[int, int]] | None = None
    ) -> None:
        own = self.own.get(rank, {})
        kept = own if own and generation else self.kept(rank)
        steps = {step: "shm" if kept[step] == own.get(step) else "peer" for step in kept}
        if generation == 0:
            steps.setdefault(0, "start")
        self.tell(
            ReadyToRestore(
                rank=rank,
                attempt=self.lives[rank],
                generation=generation,
                steps=steps,
                sharded=True,
                shards_found=found,
                created_generation={step: born for step, (_, born) in kept.items()},
            )
        )

    def go(self, go: StartGeneration) -> None:
        self.now = tuple(n for n, _ in self.gang.active)
        begins = go.step == 0 and set(go.need_state) == set(self.now)
        for rank in () if begins else go.shard_ranks or self.now:
            split, _ = self.kept(rank).get(go.step, ((), 0))
            is_first = go.step == 0 and not split
            assert is_first or split == (go.shard_ranks or self.now), (
                f"{go} {rank} {self.kept(rank)}"
            )
        for rank in self.now:
            assert begins or rank in go.need_state or not go.step or go.step in self.kept(rank)
        self.gone_back = max(self.gone_back, self.reached - go.step)
        self.reached = go.step
        for rank in self.now:
            if begins and rank in self.started:
                self.again.add(rank)  # a new process begins with a model that never stepped
                continue
            mine = self.kept(rank) if not self.own.get(rank) else self.own[rank]
            self.own[rank] = {s: cut for s, cut in mine.items() if s <= go.step}
            if not go.shard_ranks and (begins or go.step not in self.own[rank]):
                self.own[rank] = {**self.own[rank], go.step: (self.now, go.generation)}
            self.group[rank] = go.step
            self.started.add(rank)
            if go.step in self.own[rank]:
                self.ship(rank)
        for rank in set(self.now) & set(self.group):
            self.tell(Resumed(rank=rank, generation=go.generation))
        for rank in self.now if go.step == self.total else ():
            self.tell(Finished(rank=rank, attempt=self.lives[rank], generation=go.generation))
        while self.again & set(self.lives):
            self.die(min(self.again & set(self.lives)))

    def ship(self, rank: int) -> None:
        """Rule R: the peer has it before the next step."""
        living = [n for n in {self.where[n] for n in self.now} if n not in self.lost_nodes]
        others = sorted(set(living) - {self.where[rank]})
        newest = max(self.own[rank])
        copies = self.kept(rank) if self.sent.get(rank) else {}
        kept = {s: cut for s, cut in copies.items() if newest - 2 < s <= newest}
        if others:
            self.sent[rank] = (others[0], {**kept, newest: self.own[rank][newest]})

    def work(self, rank: int, *, ships: bool) -> None:
        if rank not in self.group or set(self.group) != set(self.now):
            return
        step = self.group[rank]
        if any(at < step for at in self.group.values()) or step >= self.total:
            return
        for other in self.now:  # nobody enters a step before the last one is with its peer
            if step in self.own[other]:
                self.ship(other)
        kept = {s: cut for s, cut in self.own[rank].items() if s > step - 1}
        self.own[rank] = {**kept, step + 1: (self.now, self.gang.generation)}
        self.group[rank] = step + 1
        self.reached = max(self.reached, step + 1)
        if ships:
            self.ship(rank)
        born = self.gang.generation
        self.tell(Committed(rank=rank, generation=born, step=step + 1))
        if step + 1 == self.total:
            self.tell(Finished(rank=rank, attempt=self.lives[rank], generation=born))

    def die(self, rank: int) -> None:
        if rank in self.lives:
            attempt = self.lives.pop(rank)
            self.group.pop(rank, None)
            self.tell(Exited(rank=rank, attempt=attempt, code=-9))

    def lose(self, node: str) -> None:
        self.lost_nodes.add(node)
        for rank in [n for n, at in self.where.items() if at == node]:
            self.lives.pop(rank, None)
            self.group.pop(rank, None)
            self.own.pop(rank, None)
        self.tell(NodeGone(node=NodeId(node)))

    def take_over(self) -> None:
        """A new controller, which knows what processes say and what was written down."""
        saved = capture(self.gang)
        ranks = tuple(
            rank
            if rank.has_left
            else Rank(
                node=rank.node,
                attempt=rank.attempt,
                phase=RankPhase.LEAVING if n in self.lives else RankPhase.ABSENT,
                committed=rank.committed,
            )
            for n, rank in enumerate(self.gang.ranks)
        )
        found = Gang(ranks=ranks, generation=self.gang.generation, is_session=True, is_sharded=True)
        together = set(self.group) == set(self.now)
        self.gang, commands = adopt(found, together=together, now=self.at, saved=saved)
        self.do(commands)

    def leave(self) -> None:
        for rank, attempt in list(self.lives.items()):
            self.tell(Exited(rank=rank, attempt=attempt, code=0))
