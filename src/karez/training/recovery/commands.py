"""What the recovery protocol asks for: the commands that the job controller carries out."""

from dataclasses import dataclass

from karez.core.nodes import NodeId
from karez.core.workloads import EndReason
from karez.training.recovery.state import Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRank:
    """Start a process for a rank."""

    rank: int
    node: NodeId
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiesce:
    """Tell a rank to leave its group."""

    rank: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartGeneration:
    """Tell every rank to form the group of this generation and go on after `step`."""

    generation: int
    step: int
    skipped: tuple[int, ...] = ()
    """Batches that are left out."""
    need_state: tuple[int, ...] = ()
    """Ranks that get their state from one that has it."""
    shard_ranks: tuple[int, ...] = ()
    """Ranks, then and now, whose shards of that step are cut anew; none: each takes its own."""
    created_generation: int = 0
    """The generation before which those shards do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryShards:
    """Ask a rank that stands what can be had of others that left; it answers with Stood."""

    rank: int
    generation: int
    departed: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DropReplicas:
    """Have keepers forget what they hold of ranks that have left."""

    departed: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KillRank:
    """End a rank's process: this life of it, on this node."""

    rank: int
    node: NodeId
    attempt: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindPlaces:
    """Find places for these ranks by the first rung that will do; answer with Moved or Shrunk."""

    ranks: tuple[int, ...]
    rungs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyCheckpoint:
    """Nothing else is left: have those that live store what they hold before they end."""

    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRanks:
    """Tell every rank that it may end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReceipt:
    """A recovery is complete."""

    fault: Fault
    generation: int
    resumed_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EndGang:
    """The gang is over."""

    reason: EndReason
    detail: str


RecoveryCommand = (
    StartRank
    | Quiesce
    | StartGeneration
    | QueryShards
    | DropReplicas
    | KillRank
    | FindPlaces
    | EmergencyCheckpoint
    | ExitRanks
    | WriteReceipt
    | EndGang
)
