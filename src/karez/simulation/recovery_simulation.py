"""One recovery on a large fleet: the protocol's machine, and a stage that carries it out.

What stands for ten thousand ranks is a gang of a few: those that a fault may hit, and one for all
the others, since these do the same at the same time; it takes as long as the slowest of them would.
How long each phase takes is measured where this code can be measured, and assumed where it needs
devices that were not there; `Phases` says which is which.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from karez.core.jobs import LADDER
from karez.core.nodes import NodeId
from karez.simulation.failure_rates import RACK_NODES, REPAIR_S, FaultClass, Hit
from karez.training.recovery import ladder, transitions
from karez.training.recovery.checkpoint_interval import best_interval
from karez.training.recovery.commands import (
    EndGang,
    FindPlaces,
    Quiesce,
    RecoveryCommand,
    StartGeneration,
    StartRank,
    WriteReceipt,
)
from karez.training.recovery.events import (
    CollectiveFailed,
    Committed,
    Exited,
    Hung,
    NodeGone,
    PlacesFound,
    ReadyToRestore,
    RecoveryEvent,
    Resumed,
    Shrunk,
    Tick,
)
from karez.training.recovery.limits import Limits
from karez.training.recovery.state import Gang, Phase, Rank

DAY_S = 86_400.0
PER_NODE = 8
FEW = 8
"""Ranks of the small gang: one for all that are not hit, the others to be hit."""
SIGKILL = -9
PROBE_S = 1800.0
"""A node that was left without being broken rests so long: trust.FIRST_REST_S."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseDurations:
    """How long each phase of a recovery takes, in seconds, and where that is from."""

    step_s: float = 6.0
    """A step. Llama-3 405B: 16 M tokens x 6 x 405e9 at 400 TFLOP/s on 16,384 devices."""
    exit_s: float = 0.02
    """A process's end is noticed. Measured: 0.02 s (`karez chaos run`, four ranks)."""
    silence_s: tuple[float, float] = (1.0, 1.3)
    """A silent node is noticed. The limit of the heartbeat, and measured: one look more."""
    hang_steps: float = 5.5
    """A hang is noticed after so many steps: five times the 99th percentile, taken as 1.1."""
    fork_s: tuple[float, float] = (0.03, 0.06)
    """A rank is forked and stands. Measured, as `exit_s`."""
    device_s: tuple[float, float] = (5.0, 15.0)
    """It takes its device: context, memory, kernels. Assumed."""
    spare_s: tuple[float, float] = (0.5, 1.5)
    """A warm spare that has its device already. Assumed."""
    rebuild_s: tuple[float, float] = (5.0, 15.0)
    """The group of 10,000 ranks forms. The design notes' budget; grows with the square root of
    their number. Assumed."""
    shm_s: float = 0.2
    """0.8 GB of a rank from its node's memory: measured 5.5 GB/s."""
    peer_s: float = 1.0
    """6.6 GB of a node over 200 Gb/s with overheads. Assumed."""
    restart_s: tuple[float, float] = (300.0, 600.0)
    """All processes anew, and the checkpoint from storage. Assumed."""
    checkpoint_s: float = 5.0
    """What one stored checkpoint costs; with the failures it gives the interval."""
    steady: float = 0.003
    """Share of the time that snapshots of every step cost. Assumed for hosts with spare cores;
    `benchmarks/bench_steady.py` measures it where this runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """What is simulated."""

    devices: int = 10_000
    days: float = 40.0
    per_node_day: float = 3.79e-3
    spare_share: float = 0.02
    """Spare nodes, warm, by the nodes at work; at least one."""
    elastic: float = 0.0
    """Share of the nodes that the gang may do without while there are no spares."""
    peers: int = 1
    phases: PhaseDurations = PhaseDurations()

    def __post_init__(self) -> None:
        if not PER_NODE <= self.devices <= 10_000_000:
            raise ValueError(f"devices are {PER_NODE} to 10 million, not {self.devices}")
        if not 0 < self.days <= 3650:
            raise ValueError(f"days are more than 0 and up to 3,650, not {self.days:g}")
        if not 0 <= self.per_node_day <= 10:
            raise ValueError(f"a rate is 0 to 10 per node and day, not {self.per_node_day:g}")
        if not (0 <= self.spare_share <= 1 and 0 <= self.elastic < 1):
            raise ValueError("shares of spares and of elastic nodes are between 0 and 1")

    @property
    def nodes(self) -> int:
        """Nodes at work."""
        return -(-self.devices // PER_NODE)


@dataclass(slots=True)
class SparePool:
    """The nodes beside the gang: warm spares, and those under repair."""

    spares: int
    back_at: list[float] = field(default_factory=list)

    def take(self, wanted: int, now: float) -> bool:
        """Take spare nodes, if there are enough by now."""
        self._settle(now)
        if self.spares < wanted:
            return False
        self.spares -= wanted
        return True

    def wait(self, wanted: int, now: float) -> float:
        """When there will be enough."""
        self._settle(now)
        missing = wanted - self.spares
        ready = sorted(self.back_at)[: max(0, missing)]
        return max([now, *ready])

    def mend(self, at: float) -> None:
        """A broken node comes back as a spare."""
        heapq.heappush(self.back_at, at)

    def _settle(self, now: float) -> None:
        while self.back_at and self.back_at[0] <= now:
            heapq.heappop(self.back_at)
            self.spares += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedFault:
    """A fault that comes."""

    at: float
    what: FaultClass
    node: int
    is_masked: bool = False
    """A hardware fault that looks like software at first."""


class RecoverySimulation:
    """One recovery: the protocol's machine, and a stage on which its commands are carried out."""

    def __init__(
        self,
        plan: FleetPlan,
        chance: np.random.Generator,
        yard: SparePool,
        past: tuple[tuple[NodeId, float], ...],
        costs: dict[str, float],
    ) -> None:
        self.plan, self.chance, self.yard = plan, chance, yard
        self.rung, self.redone_s, self.is_simple = "", 0.0, True
        ranks = tuple(
            Rank(node=NodeId(f"slot-{n}"), alive=True, started_once=True, committed=10, steps=())
            for n in range(FEW)
        )
        self.gang = Gang(
            ranks=ranks,
            phase=Phase.RUNNING,
            is_session=True,
            max_committed_step=10,
            recent_failures=past,
            costs=costs,
            ladder=LADDER,
            limits=Limits(start_s=3600.0, quiesce_s=600.0),
        )
        self._queue: list[tuple[float, int, RecoveryEvent]] = []
        self._order = count()
        self._broken: set[int] = set()
        """Ranks whose device will fail again."""
        self._gone: set[int] = set()
        """Ranks whose node was lost: their state is elsewhere."""
        self._hit = 0
        self._done_at: float | None = None

    def play(self, faults: Sequence[SimulatedFault], number: int, now: float) -> tuple[int, float]:
        """Until the gang is at work again. Returns the next fault's number, and when."""
        self._inject(faults[number], now)
        number += 1
        while self._done_at is None:
            at, _, event = heapq.heappop(self._queue)
            if number < len(faults) and faults[number].at < at and self._hit + 4 < FEW:
                heapq.heappush(self._queue, (at, next(self._order), event))
                self._inject(faults[number], max(faults[number].at, now))
                number += 1
                continue
            now = at
            if not isinstance(event, Tick):
                self.gang, commands = transitions.advance(self.gang, event, now)
                for command in commands:
                    self._do(command, now)
            elif not self._queue:
                raise AssertionError(f"the protocol waits for nothing: {self.gang}")
        return number, self._done_at

    def _later(self, at: float, event: RecoveryEvent) -> None:
        heapq.heappush(self._queue, (at, next(self._order), event))

    def _between(self, pair: tuple[float, float]) -> float:
        return float(self.chance.uniform(*pair))

    def _inject(self, fault: SimulatedFault, now: float) -> None:  # noqa: PLR0915 - one row per kind
        """What a fault does, and when the gang hears of it."""
        phases, hit = self.plan.phases, fault.what.hit
        rank = self._next_victim()
        place = NodeId(f"node-{fault.node}")
        self._put(rank, node=place)
        if hit == Hit.FLAP:
            stumbled = CollectiveFailed(rank=0, generation=self.gang.generation, error="reset")
            self._later(now + phases.exit_s, stumbled)
            self._later(now + phases.exit_s + 0.31, Tick())
            suspect_s = self.gang.limits.suspect_s
            self._later(
                now + phases.exit_s + suspect_s + 0.02,
                Hung(ranks=(), why="the collective broke", since=now, code="link"),
            )
        elif hit in (Hit.NODE, Hit.NETWORK, Hit.PLANNED):
            lost = [rank]
            if hit == Hit.NETWORK:
                more = int(self.chance.integers(RACK_NODES[0], RACK_NODES[1] + 1)) - 1
                lost += [self._next_victim() for _ in range(more)]
            for one in lost:
                self._put(one, node=place)
                self._gone.add(one)
            notice_s = 0.0 if hit == Hit.PLANNED else self._between(phases.silence_s)
            self._later(now + notice_s, NodeGone(node=place))
        elif hit in (Hit.HANG, Hit.SILENT):
            steps = phases.hang_steps if hit == Hit.HANG else 1.5
            hung = Hung(ranks=(rank,), why=fault.what.name, since=now, code=hit.value)
            self._later(now + steps * phases.step_s, hung)
            if hit == Hit.SILENT:
                self._broken.add(rank)
        else:
            if hit == Hit.DEVICE:
                self._broken.add(rank)
                if not fault.is_masked:  # an error code says that the device is broken
                    self.gang = replace(
                        self.gang,
                        recent_failures=(
                            *self.gang.recent_failures,
                            *[(place, now)] * ladder.CONDEMNED,
                        ),
                    )
            self._later(
                now + phases.exit_s, Exited(rank=rank, attempt=self._life(rank), code=SIGKILL)
            )

    def _do(self, command: RecoveryCommand, now: float) -> None:
        phases = self.plan.phases
        match command:
            case Quiesce(rank=rank, generation=generation):
                leave_s = self._between((0.0, phases.step_s)) if rank == 0 else 0.01
                self._report_ready(rank, now + leave_s, generation)
            case StartRank(rank=rank):
                self._spawn(rank, now)
            case FindPlaces(ranks=ranks, rungs=rungs):
                self._find(ranks, rungs, now)
            case StartGeneration(generation=generation, need_state=fresh):
                wide = (self.plan.devices / 10_000) ** 0.5
                ready = now + self._between(phases.rebuild_s) * wide
                ready += phases.peer_s if fresh or self._gone else phases.shm_s
                for rank, _ in self.gang.active:
                    self._later(ready, Resumed(rank=rank, generation=generation))
                for rank, _ in self.gang.active:
                    done = Committed(rank=rank, generation=generation, step=command.step + 1)
                    self._later(ready + phases.step_s, done)
            case WriteReceipt(fault=fault):
                self.rung, self.is_simple = fault.rung, "; then " not in fault.cause
                self._done_at = now
            case EndGang():
                self._restart(now)
            case _:
                return

    def _spawn(self, rank: int, now: float) -> None:
        phases = self.plan.phases
        moved = self.gang.ranks[rank].node.startswith("spare")
        ready = now + self._between(phases.fork_s)
        ready += self._between(phases.spare_s if moved else phases.device_s)
        if rank in self._broken and not moved:
            died = Exited(rank=rank, attempt=self._life(rank), code=SIGKILL)
            self._later(ready, died)
            return
        self._report_ready(rank, ready, 0)

    def _report_ready(self, rank: int, at: float, generation: int) -> None:
        source = "replica" if rank in self._gone else "shm"
        steps = {10: source, 9: source}
        event = ReadyToRestore(
            rank=rank, attempt=self._life(rank), generation=generation, steps=steps
        )
        self._later(at, event)

    def _find(self, ranks: tuple[int, ...], rungs: tuple[str, ...], now: float) -> None:
        """What a foreman does, over the yard."""
        homes = {n: self.gang.ranks[n].home for n in ranks}
        for rung in rungs:
            if rung == "replace" and self.yard.take(len(ranks), now):
                for n in ranks:
                    is_well = n not in self._broken | self._gone  # only its process had failed
                    self.yard.mend(now + (PROBE_S if is_well else self._between(REPAIR_S)))
                    self._gone.add(n)
                nodes = {n: NodeId(f"spare-{n}-{now}") for n in ranks}
                self._later(now, PlacesFound(nodes=nodes))
                return
            if rung == "in-place" and all(homes.values()):
                self._later(now, PlacesFound(nodes=homes, rung=rung))
                return
            if rung == "shrink" and len(ranks) <= self.plan.elastic * self.plan.nodes:
                rest = tuple(n for n, _ in self.gang.active if n not in ranks)
                for _ in ranks:
                    self.yard.mend(now + self._between(REPAIR_S))
                self._later(now, Shrunk(keep=rest))
                return
        self._later(now, PlacesFound(nodes={}))

    def _restart(self, now: float) -> None:
        """Nothing was left but to start over, once there are enough nodes again."""
        phases = self.plan.phases
        lost = max(1, len(self._broken | self._gone))
        for _ in range(lost):
            self.yard.mend(now + self._between(REPAIR_S))
        there = self.yard.wait(lost, now)
        self.yard.take(lost, there)
        between_s = DAY_S / max(1e-9, self.plan.per_node_day * self.plan.nodes)
        self.redone_s = best_interval(phases.checkpoint_s, between_s) / 2
        self.rung = "restart"
        self._done_at = there + self._between(phases.restart_s)

    def _next_victim(self) -> int:
        self._hit = min(self._hit + 1, FEW - 1)
        return self._hit

    def _life(self, rank: int) -> int:
        return self.gang.ranks[rank].attempt

    def _put(self, rank: int, *, node: NodeId) -> None:
        ranks = list(self.gang.ranks)
        ranks[rank] = replace(ranks[rank], node=node)
        self.gang = replace(self.gang, ranks=tuple(ranks))
