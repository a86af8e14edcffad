"""Training at a scale that no laptop has: the recovery protocol itself, over simulated faults.

Each fault is dealt with by `training.recovery.transitions`, the state machine that runs real
gangs, and by its ladder (simulation.recovery_simulation).
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
from karez.simulation.recovery_simulation import (
    DAY_S,
    FleetPlan,
    RecoverySimulation,
    SimulatedFault,
    SparePool,
)
from karez.training.recovery import ladder

PLANNED = FaultClass(name="planned maintenance", hit=Hit.PLANNED, weight=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryEvent:
    """One recovery."""

    at: float
    name: str
    """The class of the (first) fault."""
    rung: str
    seconds: float
    """From the fault to the first step complete, less nothing."""
    lost_s: float
    """That, and what of a step was done again."""


@dataclass(slots=True)
class TrainingRun:
    """One simulated training, from one seed."""

    plan: FleetPlan
    recoveries: list[RecoveryEvent] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    """When the whole job started over, seconds from the beginning."""

    @property
    def lost_s(self) -> float:
        """All that was lost to faults."""
        return sum(one.lost_s for one in self.recoveries)

    @property
    def goodput(self) -> float:
        """Share of the time that went into steps that count, snapshots' cost taken off."""
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
    yard = SparePool(spares=max(1, round(plan.spare_share * plan.nodes)))
    life = TrainingRun(plan)
    past: tuple[tuple[NodeId, float], ...] = ()
    costs = dict(ladder.PRIOR_S)
    number = 0
    free_at = 0.0
    while number < len(faults):
        begun = faults[number]
        if begun.at < free_at:
            begun = replace(begun, at=free_at)  # it hit what was not at work: it shows when it is
        scene = RecoverySimulation(plan, chance, yard, past, costs)
        number, end = scene.play(faults, number, begun.at)
        past = scene.gang.recent_failures
        seconds = end - begun.at
        partial_s = float(chance.uniform(0, plan.phases.step_s))
        life.recoveries.append(
            RecoveryEvent(
                at=begun.at,
                name=begun.what.name,
                rung=scene.rung,
                seconds=seconds,
                lost_s=seconds + partial_s + scene.redone_s,
            )
        )
        if scene.rung == "restart":
            life.restarts.append(begun.at)
        elif scene.is_simple:
            costs[scene.rung] = 0.9 * costs[scene.rung] + 0.1 * seconds
        free_at = end
    return life


def _faults(plan: FleetPlan, chance: np.random.Generator) -> list[SimulatedFault]:
    """Faults of one training, in order of time: of all classes, on lemons more often."""
    span = plan.days * DAY_S
    nodes = plan.nodes
    lemons = chance.random(nodes) < LEMON_SHARE
    share = np.where(lemons, LEMON_FACTOR, 1.0)
    share = share / share.sum()
    weights = np.array([one.weight for one in CLASSES])
    found: list[SimulatedFault] = []
    for _ in range(int(chance.poisson(plan.per_node_day * nodes * plan.days))):
        what = CLASSES[int(chance.choice(len(CLASSES), p=weights / weights.sum()))]
        found.append(
            SimulatedFault(
                at=float(chance.uniform(0, span)),
                what=what,
                node=int(chance.choice(nodes, p=share)),
                is_masked=what.hit == Hit.DEVICE and chance.random() < MISDIAGNOSED,
            )
        )
    for _ in range(int(chance.poisson(PLANNED_PER_NODE_DAY * nodes * plan.days))):
        node = int(chance.integers(nodes))
        found.append(SimulatedFault(at=float(chance.uniform(0, span)), what=PLANNED, node=node))
    return sorted(found, key=lambda fault: fault.at)


def simulate_many(
    plan: FleetPlan, seeds: Sequence[int], *, progress: Callable[[int], object] | None = None
) -> list[TrainingRun]:
    """One training per seed."""
    found: list[TrainingRun] = []
    for seed in seeds:
        found.append(simulate(plan, seed))
        if progress is not None:
            progress(len(found))
    return found
