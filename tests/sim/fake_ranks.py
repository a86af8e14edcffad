"""How ranks behave: groups form, steps complete, snapshots are kept, and members are missed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from karez.core.messages.orders import (
    EmergencyCheckpointOrder,
    ExitOrder,
    Order,
    QuiesceOrder,
    StartGenerationOrder,
    StoreCheckpointOrder,
)
from karez.core.messages.reports import (
    BadLossReport,
    CheckpointReport,
    CollectiveFailedReport,
    CommitReport,
    FinishedReport,
    ListeningReport,
    ReadyReport,
    RendezvousReport,
    ReplicaMismatchReport,
    ResumedReport,
    TotalStepsReport,
)
from karez.core.processes import ProcessSample
from karez.training.controller.process_specs import parse_key
from tests.sim.fake_nodes import FakeFabric, FakeProcess, Snapshots

KEPT = 2
"""Snapshots that are kept of a rank, as Rule R needs."""
MISS_S = 0.05
"""Seconds until a collective fails for want of a member."""


@dataclass
class Rank:
    """One process of a gang."""

    process: FakeProcess
    index: int
    generation: int = 0
    """Of the group that it is in, or was in last."""
    step: int = -1
    """-1: it has no state yet."""
    is_in_group: bool = False
    is_hung: bool = False
    store_at: int | None = None
    """The step to store as a checkpoint."""
    order: StartGenerationOrder | None = None

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive


@dataclass
class Gang:
    """The ranks of one job. All that they know of each other goes through their group."""

    job: str
    total: int
    """Steps of the training; 0: it is a plain script, without a session."""
    step_s: float
    fabric: FakeFabric
    ranks: dict[str, Rank] = field(default_factory=dict)
    """By key of the process."""
    completed: int = 0
    """The last step that was complete on all ranks."""
    redone: int = 0

    def start(self, process: FakeProcess, index: int) -> None:
        rank = self.ranks[process.spec.key] = Rank(process=process, index=index)
        process.on_order = partial(self.on_order, rank)
        if self.total:
            self.report_ready(rank, 0)

    def on_order(self, rank: Rank, order: Order) -> None:
        match order:
            case StartGenerationOrder():
                rank.order = order
                self.form(order.generation, order.world)
            case QuiesceOrder(generation=generation):
                rank.is_in_group, rank.order = False, None
                if not rank.is_hung:
                    self.report_ready(rank, generation)
            case StoreCheckpointOrder(step=step):
                rank.store_at = step
            case EmergencyCheckpointOrder():
                self.store(rank)
            case ExitOrder():
                self.fabric.end(rank.process, 0)
            case _:
                return

    def report_ready(self, rank: Rank, generation: int) -> None:
        steps = self.restorable(rank)
        report = ReadyReport(
            generation=generation,
            steps={step: source for step, (source, _) in steps.items()},
            created_generation={step: born for step, (_, born) in steps.items() if born},
        )
        self.fabric.report(rank.process, report)

    def restorable(self, rank: Rank) -> dict[int, tuple[str, int]]:
        name, found = (self.job, rank.index), {}
        for file in rank.process.spec.restore:
            found[int(file.split("-")[1])] = ("storage", 0)
        if rank.step < 0:
            for node in self.fabric.all.values():
                for kept in (node.replicas, node.own) if node.is_up else ():
                    for step, born in kept.get(name, {}).items():
                        found[step] = ("peer", max(born, found.get(step, ("", 0))[1]))
            found.setdefault(0, ("start", 0))
        for step, born in rank.process.home.own.get(name, {}).items():
            found[step] = ("shm", born)
        return found

    def form(self, generation: int, world: int) -> None:
        """The group forms once all its members have come."""
        members = [
            rank
            for rank in self.ranks.values()
            if rank.is_alive and rank.order is not None and rank.order.generation == generation
        ]
        if len(members) < world:
            return
        assert sorted(r.order.rank for r in members if r.order) == list(range(world))
        for rank in members:
            self.restore(rank)
        for rank in members:
            self.keep(rank)
            resumed = ResumedReport(generation=generation, step=rank.step)
            self.fabric.report(rank.process, resumed)
            self.fabric.report(rank.process, TotalStepsReport(steps=self.total))
        self.go_on(members, generation)

    def restore(self, rank: Rank) -> None:
        """Take the agreed step, which must be there."""
        order = rank.order
        assert order is not None
        if order.rank not in order.need_state:
            steps = self.restorable(rank)
            assert order.step in steps, f"{rank.index} of {self.job} cannot restore {order.step}"
        self.redone += max(0, rank.step - order.step)
        rank.generation, rank.step = order.generation, order.step
        rank.is_in_group = True

    def keep(self, rank: Rank) -> None:
        """Write a snapshot here, and have the next other node of the gang hold a replica."""
        home, name = rank.process.home, (self.job, rank.index)
        _put(home.own, name, rank.step, rank.generation)
        nodes = sorted({one.process.home.node.id for one in self.ranks.values() if one.is_alive})
        peer = nodes[(nodes.index(home.node.id) + 1) % len(nodes)]
        if peer != home.node.id:
            _put(self.fabric.all[peer].replicas, name, rank.step, rank.generation)

    def go_on(self, members: list[Rank], generation: int) -> None:
        step = members[0].step
        if step >= self.total:
            for rank in members:
                self.fabric.report(rank.process, FinishedReport(generation=generation))
            return
        self.fabric.timeline.after(self.step_s, lambda: self.complete(members, generation, step))

    def complete(self, members: list[Rank], generation: int, step: int) -> None:
        """All members complete a step, if all are still there."""
        if any(
            not (rank.is_alive and rank.is_in_group and rank.generation == generation)
            or rank.is_hung
            for rank in members
        ):
            return
        for rank in members:
            rank.step = step + 1
            self.keep(rank)
            report = CommitReport(generation=generation, step=step + 1, loss=1.0 / (step + 1))
            self.fabric.report(rank.process, report)
            if rank.store_at is not None and rank.step >= rank.store_at:
                self.store(rank)
        self.completed = max(self.completed, step + 1)
        self.go_on(members, generation)

    def store(self, rank: Rank) -> None:
        rank.store_at = None
        report = CheckpointReport(
            step=max(rank.step, 0),
            path=f"{self.job}/{rank.index}/{rank.step}",
            world=0,
            whole=True,
            held_s=0.1,
        )
        self.fabric.report(rank.process, report)

    def miss(self, process: FakeProcess) -> None:
        """A process has ended: the collectives of those that were with it fail."""
        lost = self.ranks.pop(process.spec.key, None)
        if lost is not None and lost.is_in_group:
            self.fabric.timeline.after(MISS_S, lambda: self.fail_group(lost.generation))

    def fail_group(self, generation: int) -> None:
        for rank in self.in_group():
            if rank.generation == generation and not rank.is_hung:
                report = CollectiveFailedReport(generation=generation, error="connection reset")
                self.fabric.report(rank.process, report)

    def in_group(self) -> list[Rank]:
        return [rank for rank in self.ranks.values() if rank.is_alive and rank.is_in_group]

    def report_bad_loss(self, rank: Rank) -> None:
        report = BadLossReport(
            generation=rank.generation,
            step=rank.step + 1,
            batch=rank.step,
            error="the loss is nan",
            replays=1,
        )
        self.fabric.report(rank.process, report)

    def report_mismatch(self, rank: Rank, position: int) -> None:
        report = ReplicaMismatchReport(
            generation=rank.generation, step=rank.step, ranks=(position,)
        )
        self.fabric.report(rank.process, report)

    def sample(self, process: FakeProcess) -> ProcessSample:
        rank = self.ranks.get(process.spec.key)
        is_behind = rank is not None and rank.is_hung
        return ProcessSample(
            key=process.spec.key,
            state="sleeping",
            cpu_s=0.0,
            activity="computing" if is_behind else "collective",
            step=0 if rank is None else max(rank.step, 0),
        )


def _put(kept: Snapshots, name: tuple[str, int], step: int, generation: int) -> None:
    steps = kept.setdefault(name, {})
    for other in [one for one in steps if one > step]:
        del steps[other]
    steps[step] = generation
    for other in sorted(steps)[:-KEPT]:
        del steps[other]


@dataclass
class Behaviours:
    """Gives each process of a fabric its behaviour, by the kind of its key."""

    fabric: FakeFabric
    gang_of: Callable[[str], Gang | None]
    """Job -> its ranks' model; None: it is a service."""
    gangs: dict[str, Gang] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fabric.begin = self.begin
        self.fabric.on_end = self.end
        self.fabric.sample_of = self.sample

    def begin(self, process: FakeProcess) -> None:
        job, key = process.spec.workload, process.spec.key
        if ".store." in key:
            address = f"{process.home.node.id}:2"
            self.fabric.report(process, RendezvousReport(address=address, generation=1))
            return
        gang = self.gangs.get(job) or self.gang_of(job)
        named = parse_key(key)
        if gang is None:
            self.fabric.report(process, ListeningReport(url=f"http://127.0.0.1/{key}"))
        elif named is not None:
            self.gangs[job] = gang
            self.fabric.timeline.after(1.0, lambda: self._ready(gang, process, named[0]))

    def _ready(self, gang: Gang, process: FakeProcess, index: int) -> None:
        if process.is_alive:
            gang.start(process, index)

    def end(self, process: FakeProcess) -> None:
        if (gang := self.gangs.get(process.spec.workload)) is not None:
            gang.miss(process)

    def sample(self, process: FakeProcess) -> ProcessSample:
        gang = self.gangs.get(process.spec.workload)
        if gang is None:
            return ProcessSample(key=process.spec.key, state="running", cpu_s=0.0)
        return gang.sample(process)
