"""Orders: what the controller of a job tells its ranks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, get_args

from karez.core.codec import Count
from karez.core.messages.greetings import Refusal
from karez.core.messages.wire import by_type


@dataclass(frozen=True, slots=True, kw_only=True)
class StartGenerationOrder:
    """Form the group of this generation, and continue after a step."""

    TYPE: ClassVar[str] = "start-generation"
    generation: Count
    step: Count
    rank: Count
    """Position of the receiver in the group."""
    world: Count
    epoch: Count
    rendezvous: str
    """host:port of the rendezvous store; empty for a group of one."""
    peers: tuple[str, ...] = ()
    """Replica servers that the receiver's snapshots go to."""
    ship_whole: bool = True
    """Whether replicas hold the shared part too, and not the per-rank part alone."""
    compares_replicas: bool = False
    """Whether all ranks compute the same bits, so that replicas can be compared."""
    skipped_batches: tuple[Count, ...] = ()
    need_state: tuple[Count, ...] = ()
    """Positions of ranks that receive the state from a rank that has it."""
    shard_ranks: tuple[Count, ...] = ()
    """Former and present ranks whose shards are resharded; none: each restores its own."""
    created_generation: Count = 0
    """Shards of that step from earlier generations do not count."""
    replica_servers: tuple[str, ...] = ()
    """All replica servers of the gang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuiesceOrder:
    """Leave the group, and report what can be restored."""

    TYPE: ClassVar[str] = "quiesce"
    generation: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitOrder:
    """Exit: the gang needs no rank any more."""

    TYPE: ClassVar[str] = "exit"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCheckpointOrder:
    """Write a checkpoint, of a step that all ranks agree on, or of this one where they cannot."""

    TYPE: ClassVar[str] = "store-checkpoint"
    step: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyCheckpointOrder:
    """Write the newest snapshot as a checkpoint at once."""

    TYPE: ClassVar[str] = "emergency-checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryShardsOrder:
    """Look for shards of departed ranks, and report ready again with what was found."""

    TYPE: ClassVar[str] = "query-shards"
    generation: Count
    departed: tuple[Count, ...]
    replica_servers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DropReplicasOrder:
    """Have the replica servers delete the snapshots of departed ranks."""

    TYPE: ClassVar[str] = "drop-replicas"
    departed: tuple[Count, ...]
    replica_servers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CutLinkOrder:
    """Break the connections of the group, as a network fault would. For fault injection."""

    TYPE: ClassVar[str] = "cut-link"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipBitOrder:
    """Change one bit of the model. For fault injection."""

    TYPE: ClassVar[str] = "flip-bit"


Order = (
    StartGenerationOrder
    | QuiesceOrder
    | ExitOrder
    | StoreCheckpointOrder
    | EmergencyCheckpointOrder
    | QueryShardsOrder
    | DropReplicasOrder
    | CutLinkOrder
    | FlipBitOrder
    | Refusal
)

ORDERS: Final[Mapping[str, type[Order]]] = by_type(get_args(Order))
