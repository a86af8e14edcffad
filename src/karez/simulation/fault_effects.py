"""The effects of a simulated fault: which ranks it hits, and when the gang hears of it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from karez.core.nodes import NodeId
from karez.simulation.failure_rates import RACK_NODES, FaultClass, Hit
from karez.simulation.fleet_plan import PhaseDurations
from karez.training.recovery.events import (
    CollectiveFailed,
    Exited,
    Hung,
    NodeGone,
    RecoveryEvent,
    Tick,
)
from karez.training.recovery.state import Gang

SIGKILL = -9


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedFault:
    """One fault of a simulated training."""

    at: float
    what: FaultClass
    node: int
    is_masked: bool = False
    """Whether a hardware fault looks like software at first."""

    @property
    def loses_node(self) -> bool:
        """Whether the node is lost, with the state in its memory."""
        return self.what.hit in (Hit.NODE, Hit.NETWORK, Hit.PLANNED)

    @property
    def breaks_device(self) -> bool:
        """Whether the device will fail again."""
        return self.what.hit in (Hit.DEVICE, Hit.SILENT)

    @property
    def is_diagnosed(self) -> bool:
        """Whether an error code says that the device is broken."""
        return self.what.hit == Hit.DEVICE and not self.is_masked

    def width(self, chance: np.random.Generator) -> int:
        """Number of nodes that the fault hits."""
        if self.what.hit != Hit.NETWORK:
            return 1
        return int(chance.integers(RACK_NODES[0], RACK_NODES[1] + 1))


def events_of(
    fault: SimulatedFault,
    rank: int,
    gang: Gang,
    phases: PhaseDurations,
    chance: np.random.Generator,
    now: float,
) -> Iterator[tuple[float, RecoveryEvent]]:
    """When the gang hears of a fault, and as which events; `rank` is the first that it hits."""
    hit = fault.what.hit
    if hit == Hit.FLAP:
        noticed = now + phases.exit_s
        yield noticed, CollectiveFailed(rank=0, generation=gang.generation, error="reset")
        yield noticed + 0.31, Tick()
        suspected = noticed + gang.limits.suspect_s + 0.02
        yield suspected, Hung(ranks=(), why="the collective broke", since=now, code="link")
    elif fault.loses_node:
        notice_s = 0.0 if hit == Hit.PLANNED else float(chance.uniform(*phases.silence_s))
        yield now + notice_s, NodeGone(node=NodeId(f"node-{fault.node}"))
    elif hit in (Hit.HANG, Hit.SILENT):
        steps = phases.hang_steps if hit == Hit.HANG else 1.5
        hung = Hung(ranks=(rank,), why=fault.what.name, since=now, code=hit.value)
        yield now + steps * phases.step_s, hung
    else:
        exited = Exited(rank=rank, attempt=gang.ranks[rank].attempt, code=SIGKILL)
        yield now + phases.exit_s, exited
