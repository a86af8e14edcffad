"""What can happen to a gang: the events of the recovery protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from karez.core.nodes import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A process of a rank runs."""

    rank: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyToRestore:
    """A rank has no group and can restore these steps."""

    rank: int
    attempt: int
    generation: int
    """0 from a process that has not been in a group yet."""
    steps: Mapping[int, str] = field(default_factory=dict)
    """step -> source."""
    sharded: bool = False
    created_generation: Mapping[int, int] = field(default_factory=dict)
    """step -> generation in which it was kept, where that is known."""
    shards_found: Mapping[int, Mapping[int, int]] | None = None
    """Rank -> step of which its shard can be had -> generation: the answer to Seek."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """A rank has its group and the agreed state back."""

    rank: int
    generation: int
    rigid: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A rank has completed a step."""

    rank: int
    generation: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveFailed:
    """A rank's collective broke, or its group could not be built."""

    rank: int
    generation: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hung:
    """The gang does not get on, and these ranks hold it up; none: nobody does, all wait."""

    ranks: tuple[int, ...]
    why: str
    since: float
    code: str = "hang"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLoss:
    """A rank's loss is not finite, or far from what it was: the step is not to count."""

    rank: int
    generation: int
    step: int
    batch: int
    error: str
    replays: int | None = None
    """How often the batch is tried again; None: as the limits say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaMismatch:
    """Replicas that must be alike are not; `ranks`, as numbered in the group, differ from most."""

    generation: int
    step: int
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A rank has nothing more to do and waits to leave."""

    rank: int
    attempt: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """A rank's process has ended. Negative code: by that signal."""

    rank: int
    attempt: int
    code: int
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGone:
    """A node does not answer any more."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEvicted:
    """A node is to be left, although it answers."""

    node: NodeId
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacesFound:
    """New nodes for lost ranks; an empty mapping: there are none."""

    nodes: Mapping[int, NodeId]
    rung: str = "replace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """Go on with these ranks only."""

    keep: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """Go on without some ranks, or with more: nothing is wrong."""

    leave: tuple[int, ...] = ()
    join: Mapping[int, NodeId] = field(default_factory=dict)
    """Number, beyond all there were, -> node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed."""


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
