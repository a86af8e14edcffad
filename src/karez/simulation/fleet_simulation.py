"""Simulates training on large fleets: drawn faults, each handled by the real recovery code.

`training.recovery.transitions`, the state machine that runs real gangs, handles each fault with its
ladder (simulation.recovery_simulation).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from karez.core.nodes import NodeId
from karez.simulation.failure_rates import (
    CLASSES,
    LEMON_FACTOR,
    LEMON_SHARE,
    MISDIAGNOSED,
    PLANNED_PER_NODE_DAY,
    FaultClass,
    Hit,
)
from karez.simulation.fault_effects import SimulatedFault
from karez.simulation.fleet_plan import DAY_S, FleetPlan
from karez.simulation.recovery_simulation import RecoverySimulation
from karez.simulation.spare_pool import SparePool
from karez.training.recovery import ladder

PLANNED = FaultClass(name="planned maintenance", hit=Hit.PLANNED, weight=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRecovery:
    """One recovery of a simulated training."""

    at: float
    name: str
    """Class of the first fault."""
    rung: str
    seconds: float
    """Time from the fault to the end of the first complete step."""
    lost_s: float
    """`seconds`, and the part of a step that was repeated."""


@dataclass(slots=True)
class TrainingRun:
    """One simulated training, from one seed."""

    plan: FleetPlan
    recoveries: list[SimulatedRecovery] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    """Instants at which the whole job started over, in seconds from the beginning."""

    @property
    def lost_s(self) -> float:
        """Time lost to faults."""
        return sum(recovery.lost_s for recovery in self.recoveries)

    @property
    def goodput(self) -> float:
        """Share of the time spent on steps that count, less the cost of snapshots."""
        return 1.0 - self.lost_s / (self.plan.days * DAY_S) - self.plan.phases.steady

    @property
    def longest_run_days(self) -> float:
        """The longest time without a restart of the job."""
        cuts = [0.0, *self.restarts, self.plan.days * DAY_S]
        return max(late - early for early, late in pairwise(cuts)) / DAY_S


def simulate(plan: FleetPlan, seed: int) -> TrainingRun:
    """Simulate one training."""
    chance = np.random.Generator(np.random.PCG64(seed))
    faults = _faults(plan, chance)
    spares = SparePool(spares=max(1, round(plan.spare_share * plan.nodes)))
    run = TrainingRun(plan)
    recent_failures: tuple[tuple[NodeId, float], ...] = ()
    costs = dict(ladder.PRIOR_S)
    number, free_at = 0, 0.0
    while number < len(faults):
        # a fault that hit during a recovery shows once the gang works
        fault = replace(faults[number], at=max(faults[number].at, free_at))
        recovery = RecoverySimulation(plan, chance, spares, recent_failures, costs)
        number, free_at = recovery.play(faults, number, fault.at)
        recent_failures = recovery.gang.recent_failures
        seconds = free_at - fault.at
        run.recoveries.append(_recovery_event(recovery, fault, seconds, chance))
        if recovery.rung == "restart":
            run.restarts.append(fault.at)
        elif recovery.is_simple:
            costs[recovery.rung] = 0.9 * costs[recovery.rung] + 0.1 * seconds
    return run


def _recovery_event(
    recovery: RecoverySimulation,
    fault: SimulatedFault,
    seconds: float,
    chance: np.random.Generator,
) -> SimulatedRecovery:
    partial_s = float(chance.uniform(0, recovery.plan.phases.step_s))
    return SimulatedRecovery(
        at=fault.at,
        name=fault.what.name,
        rung=recovery.rung,
        seconds=seconds,
        lost_s=seconds + partial_s + recovery.redone_s,
    )


def _faults(plan: FleetPlan, chance: np.random.Generator) -> list[SimulatedFault]:
    """Draw the faults of one training, in order of time; lemon nodes fail more often."""
    span = plan.days * DAY_S
    nodes = plan.nodes
    lemons = chance.random(nodes) < LEMON_SHARE
    share = np.where(lemons, LEMON_FACTOR, 1.0)
    share = share / share.sum()
    weights = np.array([fault_class.weight for fault_class in CLASSES])
    faults: list[SimulatedFault] = []
    for _ in range(int(chance.poisson(plan.per_node_day * nodes * plan.days))):
        what = CLASSES[int(chance.choice(len(CLASSES), p=weights / weights.sum()))]
        faults.append(
            SimulatedFault(
                at=float(chance.uniform(0, span)),
                what=what,
                node=int(chance.choice(nodes, p=share)),
                is_masked=what.hit == Hit.DEVICE and chance.random() < MISDIAGNOSED,
            )
        )
    for _ in range(int(chance.poisson(PLANNED_PER_NODE_DAY * nodes * plan.days))):
        node = int(chance.integers(nodes))
        faults.append(SimulatedFault(at=float(chance.uniform(0, span)), what=PLANNED, node=node))
    return sorted(faults, key=lambda fault: fault.at)


def simulate_many(
    plan: FleetPlan, seeds: Sequence[int], *, progress: Callable[[int], object] | None = None
) -> list[TrainingRun]:
    """Simulate one training per seed; `progress` is called with the number done."""
    runs: list[TrainingRun] = []
    for seed in seeds:
        runs.append(simulate(plan, seed))
        if progress is not None:
            progress(len(runs))
    return runs
