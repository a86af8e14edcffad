"""Commands of the recovery protocol: what the job controller carries out."""

from dataclasses import dataclass

from karez.core.nodes import NodeId
from karez.core.workloads import EndReason
from karez.training.recovery.state import Fault, Gang


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRank:
    """Start a process for a rank."""

    rank: int
    node: NodeId
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiesce:
    """Tell a rank to leave its process group."""

    rank: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartGeneration:
    """Tell every rank to form the group of this generation and to continue after `step`."""

    generation: int
    step: int
    skipped: tuple[int, ...] = ()
    """Batches that are left out."""
    need_state: tuple[int, ...] = ()
    """Ranks that receive the state from a rank that has it."""
    shard_ranks: tuple[int, ...] = ()
    """Former and present ranks whose shards of that step are resharded; empty: each rank restores
    its own shard."""
    created_generation: int = 0
    """Shards of that step from earlier generations do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryShards:
    """Ask a quiesced rank which shards of departed ranks exist; the answer is ReadyToRestore."""

    rank: int
    generation: int
    departed: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DropReplicas:
    """Have the replica servers delete the snapshots of departed ranks."""

    departed: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KillRank:
    """End one attempt of a rank: this process, on this node."""

    rank: int
    node: NodeId
    attempt: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindPlaces:
    """Find nodes for these ranks by the first rung that works; answer PlacesFound or Shrunk."""

    ranks: tuple[int, ...]
    rungs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyCheckpoint:
    """Last resort: these surviving ranks write a checkpoint before they are ended."""

    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRanks:
    """Tell every rank that it may exit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReceipt:
    """Record a completed recovery."""

    fault: Fault
    generation: int
    resumed_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EndGang:
    """End the job's run, for this reason."""

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

Decision = tuple[Gang, tuple[RecoveryCommand, ...]]
"""The next state of a gang, and the commands that lead there."""


def kill_rank(gang: Gang, number: int, why: str) -> KillRank:
    """The command that ends a rank's present process; call before the next attempt is chosen."""
    rank = gang.ranks[number]
    return KillRank(rank=number, node=rank.node or rank.home, attempt=rank.attempt, why=why)


def start_rank(gang: Gang, number: int) -> StartRank:
    """The command that starts a rank's present attempt on its node."""
    rank = gang.ranks[number]
    return StartRank(rank=number, node=rank.node, attempt=rank.attempt)
