"""Events of the recovery protocol: what can happen to a gang."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from karez.core.nodes import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A rank's process runs."""

    rank: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyToRestore:
    """A rank has left its process group and can restore these steps."""

    rank: int
    attempt: int
    generation: int
    """0: the process has not been in a group yet."""
    steps: Mapping[int, str] = field(default_factory=dict)
    """Step -> source, one of state.SOURCES."""
    sharded: bool = False
    created_generation: Mapping[int, int] = field(default_factory=dict)
    """Step -> generation in which its snapshot was taken, where that is known."""
    shards_found: Mapping[int, Mapping[int, int]] | None = None
    """Departed rank -> step of an available shard -> generation: the answer to QueryShards."""
    snapshot_every: int = 1
    """Steps between two snapshots in the generation that ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """A rank is in its process group and has restored the common step."""

    rank: int
    generation: int
    rigid: bool = False
    """The state is split in a way that cannot be resharded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A rank has completed a step."""

    rank: int
    generation: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveFailed:
    """A rank's collective failed, or its process group could not be built."""

    rank: int
    generation: int
    error: str


UNEVEN = "uneven"
"""Code of a hang because some ranks have ended their loop before others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hung:
    """The gang makes no progress because these ranks hang; no ranks: all wait in a collective."""

    ranks: tuple[int, ...]
    why: str
    since: float
    code: str = "hang"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLoss:
    """A rank's loss is not finite, or far from its earlier values: the step must not count."""

    rank: int
    generation: int
    step: int
    batch: int
    error: str
    replays: int | None = None
    """How often the batch is tried again; None: as often as Limits.replays says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaMismatch:
    """Replicas differ that must be equal; `ranks`, as numbered in the group, are the minority."""

    generation: int
    step: int
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A rank has completed its training and waits for ExitRanks."""

    rank: int
    attempt: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """A rank's process has ended. A negative code: by that signal."""

    rank: int
    attempt: int
    code: int
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGone:
    """A node no longer answers."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEvicted:
    """A node must be left, although it answers."""

    node: NodeId
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacesFound:
    """Nodes for lost ranks were found; an empty mapping: none are free."""

    nodes: Mapping[int, NodeId]
    rung: str = "replace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """The gang continues with these ranks only."""

    keep: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """An elastic gang changes its size, without a fault."""

    leave: tuple[int, ...] = ()
    join: Mapping[int, NodeId] = field(default_factory=dict)
    """New rank -> node; the numbers are above all that were used before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed: deadlines are checked."""


RecoveryEvent = (
    Started
    | ReadyToRestore
    | Resumed
    | Committed
    | CollectiveFailed
    | Hung
    | BadLoss
    | ReplicaMismatch
    | Finished
    | Exited
    | NodeGone
    | NodeEvicted
    | PlacesFound
    | Shrunk
    | Resized
    | Tick
)
