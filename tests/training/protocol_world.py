"""Ranks, node agents and control that hear of each other late, for tests of the protocol."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from karez.core.nodes import NodeId
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
from karez.training.recovery.state import Gang, Phase, Rank, RankPhase
from karez.training.recovery.takeover import adopt, begin
from karez.training.recovery.transitions import advance

Order = StartRank | Quiesce | StartGeneration | KillRank | ExitRanks


@dataclass
class Process:
    """One attempt of a rank."""

    rank: int
    attempt: int
    node: NodeId
    is_alive: bool = True
    is_hung: bool = False
    generation: int = 0
    """That it left its group for, or works in; 0: it has not been in a group."""
    in_group: bool = False
    step: int = 0
    log: list[RecoveryEvent] = field(default_factory=list)
    """All that it reported: its node agent remembers it."""

    @property
    def key(self) -> tuple[int, int]:
        return self.rank, self.attempt


@dataclass
class ProtocolWorld:
    """A gang without shards. Orders and reports wait until a test lets them through."""

    nodes: list[NodeId]
    total: int = 6
    at: float = 0.0
    gang: Gang = field(init=False)
    processes: dict[tuple[int, int], Process] = field(default_factory=dict)
    orders: dict[int, deque[Order]] = field(default_factory=dict)
    """Rank -> what its node agent was told and has not done."""
    reports: dict[NodeId, deque[RecoveryEvent]] = field(default_factory=dict)
    """Node -> what control was told by it and has not read."""
    holds: dict[int, set[int]] = field(default_factory=dict)
    """Rank -> steps that it, or a replica of it on another node, still has."""
    searches: deque[FindPlaces] = field(default_factory=deque)
    lost: set[NodeId] = field(default_factory=set)
    ends: list[EndGang] = field(default_factory=list)
    receipts: list[WriteReceipt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gang = Gang(ranks=tuple(Rank(node=node) for node in self.nodes))
        self.obey(begin(self.gang))

    # control

    def tell(self, event: RecoveryEvent, after_s: float = 0.01) -> None:
        self.at += after_s
        self.gang, commands = advance(self.gang, event, self.at)
        self.obey(commands)

    def obey(self, commands: Iterable[RecoveryCommand]) -> None:
        for command in commands:
            match command:
                case StartRank(rank=rank) | Quiesce(rank=rank) | KillRank(rank=rank):
                    self.orders.setdefault(rank, deque()).append(command)
                case StartGeneration() | ExitRanks():
                    if isinstance(command, StartGeneration):
                        self.check_restore(command)
                    for rank, _ in self.gang.active:
                        self.orders.setdefault(rank, deque()).append(command)
                case FindPlaces():
                    self.searches.append(command)
                case EndGang():
                    self.ends.append(command)
                case WriteReceipt():
                    self.receipts.append(command)

    def check_restore(self, start: StartGeneration) -> None:
        """At most one step that was complete everywhere is done again, and all can restore it."""
        assert start.generation == self.gang.generation
        assert start.step >= self.gang.max_committed_step - 1, (start, self.gang)
        for rank, _ in self.gang.active:
            held = self.holds.get(rank, {0})
            assert start.step in held or rank in start.need_state, (start, rank, held)
        assert len(start.need_state) < len(self.gang.active)

    def take_over(self, *, is_told: bool) -> None:
        """Another controller: it knows what processes say and what was stored, and reads again.

        Control calls a node agent before its next step, so the last one had given its orders, or
        had died before it did.
        """
        if is_told:
            for rank in sorted(self.orders):
                while self.orders[rank]:
                    self.do_next(rank)
        self.orders.clear()
        saved = capture(self.gang)
        ranks = tuple(
            rank if rank.has_left else self.described(n, rank)
            for n, rank in enumerate(self.gang.ranks)
        )
        newest = [self.newest(n) for n, _ in self.gang.active]
        found = Gang(
            ranks=ranks,
            generation=self.gang.generation,
            since=self.at,
            is_session=any(self.was_ready(one) for one in newest if one),
        )
        together = all(one and self.resumed_in(one) == found.generation for one in newest)
        self.searches.clear()
        self.reports = {node: deque() for node in self.reports}
        for process in sorted(self.processes.values(), key=lambda one: one.key):
            if process.node not in self.lost:
                self.reports.setdefault(process.node, deque()).extend(process.log)
        self.gang, commands = adopt(found, together=together, now=self.at, saved=saved)
        self.obey(commands)
        for node in self.lost & {rank.node for _, rank in self.gang.active}:
            self.tell(NodeGone(node=node))

    def described(self, number: int, rank: Rank) -> Rank:
        process = self.newest(number)
        if process is None:
            return Rank(node=rank.node or rank.home)
        phase = RankPhase.LEAVING if self.was_ready(process) else RankPhase.STARTED
        return Rank(
            node=process.node,
            attempt=process.attempt,
            committed=process.step,
            phase=phase if process.is_alive else RankPhase.ABSENT,
        )

    def newest(self, rank: int) -> Process | None:
        """The newest process of a rank that a node still knows."""
        known = [p for p in self.processes.values() if p.rank == rank and p.node not in self.lost]
        return max(known, key=lambda process: process.attempt, default=None)

    @staticmethod
    def was_ready(process: Process) -> bool:
        return any(isinstance(event, ReadyToRestore) for event in process.log)

    @staticmethod
    def resumed_in(process: Process) -> int:
        found = [event.generation for event in process.log if isinstance(event, Resumed)]
        return found[-1] if found else -1

    def answer_search(self, *, finds: bool) -> None:
        """Devices are found, or the gang shrinks, or it ends."""
        search = self.searches.popleft()
        homeless = {n: rank for n, rank in self.gang.active if not rank.node}
        up = [node for node in self.nodes if node not in self.lost]
        left = tuple(n for n, rank in self.gang.active if n not in homeless)
        if finds and up:
            homes = {n: rank.home for n, rank in homeless.items()}
            stays = "in-place" in search.rungs and all(homes.values())
            nodes = homes if stays and not set(homes.values()) & self.lost else {}
            rung = "in-place" if nodes else "replace"
            self.tell(PlacesFound(nodes=nodes or dict.fromkeys(homeless, up[0]), rung=rung))
        elif left and "shrink" in search.rungs:
            self.tell(Shrunk(keep=left))
        else:
            self.tell(PlacesFound(nodes={}))

    # ranks and node agents

    def report(self, process: Process, event: RecoveryEvent) -> None:
        process.log.append(event)
        if process.node not in self.lost:
            self.reports.setdefault(process.node, deque()).append(event)

    def do_next(self, rank: int) -> None:
        """The node agent, or the rank, does what it was told first."""
        order = self.orders[rank].popleft()
        if isinstance(order, StartRank):
            if order.node not in self.lost and (rank, order.attempt) not in self.processes:
                self.start(order)
            return
        newest = self.running(rank)
        if isinstance(order, KillRank):
            killed = self.processes.get((rank, order.attempt))
            if killed is not None and killed.is_alive:
                self.end(killed, -9)
        elif newest is not None and not newest.is_hung:
            self.follow(newest, order)

    def start(self, order: StartRank) -> None:
        process = Process(rank=order.rank, attempt=order.attempt, node=order.node)
        self.processes[process.key] = process
        self.report(process, Started(rank=process.rank, attempt=process.attempt))
        self.ready(process)

    def follow(self, process: Process, order: Quiesce | StartGeneration | ExitRanks) -> None:
        match order:
            case Quiesce(generation=generation) if generation > process.generation:
                is_new = process.generation == 0 and not process.in_group
                process.in_group = False
                process.generation = generation
                if not is_new:
                    self.ready(process)
            case StartGeneration(generation=generation, step=step):
                if process.in_group or process.generation > generation:
                    return
                process.generation, process.in_group, process.step = generation, True, step
                held = self.holds.get(process.rank, set())
                self.holds[process.rank] = {one for one in held if one <= step} | {step}
                self.report(process, Resumed(rank=process.rank, generation=generation))
                self.finish_if_done(process)
            case ExitRanks():
                self.end(process, 0)

    def ready(self, process: Process) -> None:
        generation = process.generation
        steps = {step: "shm" for step in self.holds.get(process.rank, set())}
        if generation == 0:
            steps.setdefault(0, "start")
        rank, attempt = process.key
        event = ReadyToRestore(rank=rank, attempt=attempt, generation=generation, steps=steps)
        self.report(process, event)

    def running(self, rank: int) -> Process | None:
        alive = [p for p in self.processes.values() if p.rank == rank and p.is_alive]
        return max(alive, key=lambda process: process.attempt, default=None)

    def end(self, process: Process, code: int) -> None:
        process.is_alive = process.in_group = False
        rank, attempt = process.key
        self.report(process, Exited(rank=rank, attempt=attempt, code=code))

    def group(self) -> list[Process]:
        """Living ranks of the present generation's group; empty where it is not complete."""
        members = [self.running(n) for n, _ in self.gang.active]
        generation = self.gang.generation
        found = [p for p in members if p and p.in_group and p.generation == generation]
        return found if len(found) == len(members) else []

    def may_work(self) -> list[Process]:
        """Ranks that can complete a step: nobody may be more than one step ahead."""
        group = [process for process in self.group() if not process.is_hung]
        lowest = min((process.step for process in self.group()), default=0)
        return [p for p in group if p.step == lowest and p.step < self.total]

    def work(self, process: Process) -> None:
        process.step += 1
        held = self.holds[process.rank] | {process.step}
        self.holds[process.rank] = {step for step in held if step >= process.step - 1}
        generation = process.generation
        self.report(process, Committed(rank=process.rank, generation=generation, step=process.step))
        self.finish_if_done(process)

    def finish_if_done(self, process: Process) -> None:
        if process.step == self.total:
            rank, attempt = process.key
            event = Finished(rank=rank, attempt=attempt, generation=process.generation)
            self.report(process, event)

    def lose(self, node: NodeId) -> None:
        """A node with all of its processes; control hears of it last."""
        self.lost.add(node)
        for process in self.processes.values():
            if process.node == node:
                process.is_alive = process.in_group = False
        self.reports[node] = deque([NodeGone(node=node)])

    def read_next(self, node: NodeId) -> None:
        self.tell(self.reports[node].popleft())

    def is_over(self) -> bool:
        return self.gang.phase in (Phase.DONE, Phase.FAILED)
