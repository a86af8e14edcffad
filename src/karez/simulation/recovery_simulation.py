"""Simulates one recovery on a large fleet: the real state machine, with simulated execution.

A gang of a few ranks represents ten thousand: the ranks that a fault may hit, and one for all the
others, since these do the same at the same time. That one takes as long as the slowest of them
would. Durations of phases are measured where this code can be measured, and assumed where it needs
devices that were not there; `PhaseDurations` says which is which.
"""

import heapq
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import numpy as np

from karez.core.jobs import LADDER
from karez.core.nodes import NodeId
from karez.simulation.failure_rates import REPAIR_S
from karez.simulation.fault_effects import SIGKILL, SimulatedFault, events_of
from karez.simulation.fleet_plan import DAY_S, FleetPlan
from karez.simulation.spare_pool import SparePool
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
    Committed,
    Exited,
    PlacesFound,
    ReadyToRestore,
    RecoveryEvent,
    Resumed,
    Shrunk,
    Tick,
)
from karez.training.recovery.limits import Limits
from karez.training.recovery.state import Gang, Phase, Rank, RankPhase

FEW = 8
"""Ranks of the small gang: one for all that are not hit, the others to be hit."""
PROBE_S = 1800.0
"""Seconds that a healthy node which the gang left rests: node_health.FIRST_REST_S."""


class RecoverySimulation:
    """One recovery: the state machine, and the execution of its commands."""

    def __init__(
        self,
        plan: FleetPlan,
        chance: np.random.Generator,
        spares: SparePool,
        recent_failures: tuple[tuple[NodeId, float], ...],
        costs: dict[str, float],
    ) -> None:
        self.plan, self.chance, self.spares = plan, chance, spares
        self.rung, self.redone_s, self.is_simple = "", 0.0, True
        self.gang = _gang(recent_failures, costs)
        self._queue: list[tuple[float, int, RecoveryEvent]] = []
        self._order = count()
        self._broken: set[int] = set()
        """Ranks whose device will fail again."""
        self._gone: set[int] = set()
        """Ranks whose node was lost: their state is on other nodes only."""
        self._hit = 0
        self._done_at: float | None = None

    def play(self, faults: Sequence[SimulatedFault], number: int, now: float) -> tuple[int, float]:
        """Simulate until the gang works again. Returns the next fault's number, and when."""
        self._inject(faults[number], now)
        number += 1
        while self._done_at is None:
            at, _, event = heapq.heappop(self._queue)
            if number < len(faults) and faults[number].at < at and self._hit + 4 < FEW:
                self._later(at, event)
                self._inject(faults[number], max(faults[number].at, now))
                number += 1
                continue
            now = at
            if not isinstance(event, Tick):
                self.gang, commands = transitions.advance(self.gang, event, now)
                for command in commands:
                    self._do(command, now)
            elif not self._queue:
                raise AssertionError(f"the state machine waits for no event: {self.gang}")
        return number, self._done_at

    def _later(self, at: float, event: RecoveryEvent) -> None:
        heapq.heappush(self._queue, (at, next(self._order), event))

    def _between(self, pair: tuple[float, float]) -> float:
        return float(self.chance.uniform(*pair))

    def _inject(self, fault: SimulatedFault, now: float) -> None:
        """Apply a fault to the ranks that it hits, and queue the events that report it."""
        node = NodeId(f"node-{fault.node}")
        ranks = [self._next_victim() for _ in range(fault.width(self.chance))]
        for rank in ranks:
            self._move(rank, node)
        if fault.loses_node:
            self._gone.update(ranks)
        if fault.breaks_device:
            self._broken.update(ranks)
        if fault.is_diagnosed:
            condemned = [(node, now)] * ladder.CONDEMNED
            failures = (*self.gang.recent_failures, *condemned)
            self.gang = replace(self.gang, recent_failures=failures)
        for at, event in events_of(fault, ranks[0], self.gang, self.plan.phases, self.chance, now):
            self._later(at, event)

    def _do(self, command: RecoveryCommand, now: float) -> None:
        match command:
            case Quiesce(rank=rank, generation=generation):
                leave_s = self._between((0.0, self.plan.phases.step_s)) if rank == 0 else 0.01
                self._report_ready(rank, now + leave_s, generation)
            case StartRank(rank=rank):
                self._spawn(rank, now)
            case FindPlaces(ranks=ranks, rungs=rungs):
                self._find(ranks, rungs, now)
            case StartGeneration():
                self._start_generation(command, now)
            case WriteReceipt(fault=fault):
                self.rung, self.is_simple = fault.rung, "; then " not in fault.cause
                self._done_at = now
            case EndGang():
                self._restart(now)
            case _:
                return

    def _start_generation(self, command: StartGeneration, now: float) -> None:
        phases, generation = self.plan.phases, command.generation
        wide = (self.plan.devices / 10_000) ** 0.5
        ready = now + self._between(phases.rebuild_s) * wide
        ready += phases.peer_s if command.need_state or self._gone else phases.shm_s
        for rank, _ in self.gang.active:
            self._later(ready, Resumed(rank=rank, generation=generation))
        for rank, _ in self.gang.active:
            done = Committed(rank=rank, generation=generation, step=command.step + 1)
            self._later(ready + phases.step_s, done)

    def _spawn(self, rank: int, now: float) -> None:
        phases = self.plan.phases
        is_moved = self.gang.ranks[rank].node.startswith("spare")
        ready = now + self._between(phases.fork_s)
        ready += self._between(phases.spare_s if is_moved else phases.device_s)
        if rank in self._broken and not is_moved:
            attempt = self.gang.ranks[rank].attempt
            self._later(ready, Exited(rank=rank, attempt=attempt, code=SIGKILL))
        else:
            self._report_ready(rank, ready, 0)

    def _report_ready(self, rank: int, at: float, generation: int) -> None:
        source = "replica" if rank in self._gone else "shm"
        event = ReadyToRestore(
            rank=rank,
            attempt=self.gang.ranks[rank].attempt,
            generation=generation,
            steps={10: source, 9: source},
        )
        self._later(at, event)

    def _find(self, ranks: tuple[int, ...], rungs: tuple[str, ...], now: float) -> None:
        """Find places as the job controller does, with the spare pool as its nodes."""
        homes = {n: self.gang.ranks[n].home for n in ranks}
        for rung in rungs:
            if rung == "replace" and self.spares.take(len(ranks), now):
                nodes = {n: NodeId(f"spare-{n}-{now}") for n in ranks}
                self._leave_nodes(ranks, now)
                self._later(now, PlacesFound(nodes=nodes))
                return
            if rung == "in-place" and all(homes.values()):
                self._later(now, PlacesFound(nodes=homes, rung=rung))
                return
            if rung == "shrink" and len(ranks) <= self.plan.elastic * self.plan.nodes:
                rest = tuple(n for n, _ in self.gang.active if n not in ranks)
                for _ in ranks:
                    self.spares.mend(now + self._between(REPAIR_S))
                self._later(now, Shrunk(keep=rest))
                return
        self._later(now, PlacesFound(nodes={}))

    def _leave_nodes(self, ranks: tuple[int, ...], now: float) -> None:
        """Send the nodes that the ranks leave to repair, or to rest if only a process failed."""
        for n in ranks:
            is_healthy = n not in self._broken | self._gone
            self.spares.mend(now + (PROBE_S if is_healthy else self._between(REPAIR_S)))
            self._gone.add(n)

    def _restart(self, now: float) -> None:
        """Start the whole job over from its checkpoint, once there are enough nodes."""
        phases = self.plan.phases
        lost = max(1, len(self._broken | self._gone))
        for _ in range(lost):
            self.spares.mend(now + self._between(REPAIR_S))
        ready = self.spares.wait(lost, now)
        self.spares.take(lost, ready)
        between_s = DAY_S / max(1e-9, self.plan.per_node_day * self.plan.nodes)
        self.redone_s = best_interval(phases.checkpoint_s, between_s) / 2
        self.rung = "restart"
        self._done_at = ready + self._between(phases.restart_s)

    def _next_victim(self) -> int:
        self._hit = min(self._hit + 1, FEW - 1)
        return self._hit

    def _move(self, rank: int, node: NodeId) -> None:
        ranks = list(self.gang.ranks)
        ranks[rank] = replace(ranks[rank], node=node)
        self.gang = replace(self.gang, ranks=tuple(ranks))


def _gang(recent_failures: tuple[tuple[NodeId, float], ...], costs: dict[str, float]) -> Gang:
    """The small gang at work, with what earlier recoveries left behind."""
    ranks = tuple(
        Rank(node=NodeId(f"slot-{n}"), phase=RankPhase.TRAINING, committed=10, steps=())
        for n in range(FEW)
    )
    return Gang(
        ranks=ranks,
        phase=Phase.RUNNING,
        is_session=True,
        max_committed_step=10,
        recent_failures=recent_failures,
        costs=costs,
        ladder=LADDER,
        limits=Limits(start_s=3600.0, quiesce_s=600.0),
    )
