"""Failure rates of large training: published counts, as classes of faults. Pure.

Every figure names its source; those marked so were read second-hand in the design notes on
resilience. Times are in seconds, rates per node and day, a node being eight devices.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Hit(StrEnum):
    """What a fault stops, which decides how it is noticed."""

    PROCESS = "process"
    """A rank ends; its device is healthy."""
    DEVICE = "device"
    """A rank ends, and will end again on the same device."""
    NODE = "node"
    """A whole node goes silent."""
    NETWORK = "network"
    """Several nodes behind one switch go silent."""
    FLAP = "flap"
    """A link breaks for a moment: collectives fail, no rank is lost."""
    HANG = "hang"
    """A rank makes no progress, without any error."""
    SILENT = "silent"
    """A device computes wrongly, without any error."""
    PLANNED = "planned"
    """Maintenance that is known beforehand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultClass:
    """One class of faults."""

    name: str
    hit: Hit
    weight: float
    """Number of faults of this class, which is its share of all faults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Failure rate of a published fleet."""

    name: str
    per_node_day: float
    source: str


FLEETS: Mapping[str, Fleet] = {
    "llama3": Fleet(
        name="llama3",
        per_node_day=3.79e-3,
        source="419 unplanned interruptions in 54 days on 16,384 H100: 'The Llama 3 Herd of "
        "Models', arXiv 2407.21783, table 5",
    ),
    "rsc1": Fleet(
        name="rsc1",
        per_node_day=6.50e-3,
        source="Meta RSC-1, 'Revisiting Reliability in Large-Scale ML Research Clusters', HPCA'25 "
        "(second-hand)",
    ),
    "rsc2": Fleet(name="rsc2", per_node_day=2.34e-3, source="Meta RSC-2, as rsc1 (second-hand)"),
    "opt": Fleet(
        name="opt",
        per_node_day=1.6e-2,
        source="OPT-175B on 124 nodes, about two machines a day (second-hand)",
    ),
}

CLASSES: tuple[FaultClass, ...] = (
    FaultClass(name="GPU", hit=Hit.DEVICE, weight=148),
    FaultClass(name="HBM", hit=Hit.DEVICE, weight=72),
    FaultClass(name="GPU SRAM", hit=Hit.DEVICE, weight=19),
    FaultClass(name="GPU system processor", hit=Hit.DEVICE, weight=17),
    FaultClass(name="GPU thermal or sensor", hit=Hit.DEVICE, weight=6),
    FaultClass(name="software", hit=Hit.PROCESS, weight=54),
    FaultClass(name="dependency", hit=Hit.PROCESS, weight=2),
    FaultClass(name="switch or cable, lasting", hit=Hit.NETWORK, weight=17.5),
    FaultClass(name="switch or cable, flapping", hit=Hit.FLAP, weight=17.5),
    FaultClass(name="host maintenance", hit=Hit.NODE, weight=32),
    FaultClass(name="network card", hit=Hit.NODE, weight=7),
    FaultClass(name="host (disk, power, board, CPU, DRAM)", hit=Hit.NODE, weight=14),
    FaultClass(name="collective watchdog", hit=Hit.HANG, weight=7),
    FaultClass(name="silent corruption", hit=Hit.SILENT, weight=6),
)
"""Llama-3's table of 419. That half of the network's faults flap, and half last, is assumed: the
table does not say."""
PLANNED_PER_NODE_DAY = 47 / (54 * 16_384 / 8)
"""Planned interruptions. Source: the same table, 47 of 466."""
LEMON_SHARE, LEMON_FACTOR = 0.015, 10.0
"""Nodes that fail far more often than the others. Source: HPCA'25 found 1.2% to 1.7% lemon nodes;
that they fail ten times as often is assumed."""
MISDIAGNOSED = 0.05
"""Hardware faults that look like software at first. Source: the design notes' suggestion."""
REPAIR_S = (2 * 3600.0, 48 * 3600.0)
"""Time until a broken node is back, evenly spread. Source: as above, 2 hours to 2 days."""
RACK_NODES = (2, 4)
"""Nodes that a lasting fault of the network takes. Source: as above, several nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Cost of one interruption on another system, by its own publication."""

    name: str
    seconds: float
    source: str


PEERS: tuple[Peer, ...] = (
    Peer(
        name="restart from a checkpoint",
        seconds=1800 + 900,
        source="half an hour to restart, as the reference product says of the industry at its "
        "best, and half of a 30-minute interval done again",
    ),
    Peer(
        name="MegaScale",
        seconds=600 + 900,
        source="detected and diagnosed in under 10 min, caught up in under 15: NSDI'24 "
        "(from memory in the design notes)",
    ),
    Peer(
        name="the reference product",
        seconds=600,
        source="recovers in under 10 minutes: its published claim",
    ),
    Peer(
        name="FlashRecovery",
        seconds=150,
        source="150 s on 4,800 NPUs, flat in scale: arXiv 2509.03047",
    ),
    Peer(
        name="HyperPod checkpointless",
        seconds=120,
        source="under 2 minutes: AWS, 2025",
    ),
)
