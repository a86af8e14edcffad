"""The state of a gang, what can happen to it, and what can be done: the protocol's words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from karez.core.resources import NodeId
from karez.core.workloads import EndReason
from karez.training.cuts import Cut
from karez.training.ladder import PRIOR_S
from karez.training.limits import Limits

NOWHERE = NodeId("")
RUNGS = ("retry", "in-place", "replace", "shrink", "restart")
"""From the cheapest to the dearest."""
SOURCES = ("shm", "peer", "replica", "storage", "start")
"""Where a rank's state can come from, nearest first. From a `replica`: the rank has what is its
own (random generators, cursor), and takes the model from another that has all of it."""


class Phase(StrEnum):
    """Where the gang is."""

    QUIESCING = "quiescing"
    """Waiting until every rank stands still and says what it can restore."""
    PLACING = "placing"
    """Waiting for devices for lost ranks."""
    RESUMING = "resuming"
    """Told to go on; the first step of the generation is not complete everywhere."""
    RUNNING = "running"
    DRAINING = "draining"
    """All ranks are done and have been told to leave."""
    DONE = "done"
    FAILED = "failed"


HEALING = frozenset({Phase.QUIESCING, Phase.PLACING, Phase.RESUMING})
"""Phases in which a fault is being dealt with, if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One rank as last heard of."""

    node: NodeId
    home: NodeId = NOWHERE
    """Where it stood when a new place is looked for, if that node is still there."""
    life: int = 1
    """Which process: counts restarts."""
    alive: bool = False
    standing: bool = False
    """Has left its group in this generation and waits for the word."""
    steps: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()
    """Where each restorable step would come from, beside `steps`."""
    found: Mapping[int, Mapping[int, int]] | None = None
    """What can be had of ranks that have left, as in Stood; None: not asked."""
    sought: bool = False
    """Was asked by Seek, and has not answered yet."""
    settled: bool = False
    """Has stood still at least once in this life: it is past its start."""
    committed: int = 0
    finished: bool = False
    left: bool = False
    retired: bool = False
    """Given up when the gang shrank; its number is not used again."""
    cleared: bool = False
    """Retired, and nobody needs its snapshots any more."""
    joining: bool = False
    """New in the gang: it has no state of its own until its first step."""
    tainted: bool = False
    """Its state is not to be trusted: it takes that of another."""
    resumed: bool = False
    """Has its group and its state in this generation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The fault being healed: what a receipt needs."""

    cause: str
    ranks: tuple[int, ...]
    rung: str
    detected_at: float
    step_before: int
    code: str = "exit"
    """What kind of fault: one of core.receipts.CODES."""
    confirmed_at: float = 0.0
    decided_at: float = 0.0
    restored_at: float = 0.0
    source: str = ""
    step_restored: int = 0
    nodes: tuple[NodeId, ...] = ()
    """Where the lost ranks stood."""
    skipped: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """The whole state. Steps count completed optimizer steps."""

    ranks: tuple[Rank, ...]
    generation: int = 1
    phase: Phase = Phase.QUIESCING
    since: float = 0.0
    fault: Fault | None = None
    faults: int = 0
    """Recoveries since the last new step."""
    best: int = 0
    """Highest step ever complete on all ranks."""
    agreed: int = 0
    """The step that this generation went on from."""
    limits: Limits = field(default_factory=Limits)
    slowest_start_s: float = 0.0
    """How long a process took at most until it stood for the first time."""
    is_session: bool = False
    """False until a rank has stood: a plain script, which only a full restart heals."""
    suspect: "Stumbled | None" = None
    """A rank's collective broke; whose fault it was may become known in a moment."""
    suspect_at: float = 0.0
    ladder: tuple[str, ...] = RUNGS
    ladder_fixed: bool = False
    costs: Mapping[str, float] = field(default_factory=lambda: dict(PRIOR_S))
    """Rung -> seconds that it is expected to cost."""
    past: tuple[tuple[NodeId, float], ...] = ()
    """Where and when ranks were lost within ladder.WINDOW_S."""
    pinned_until: float = 0.0
    """Until then there is no other place for anyone."""
    is_sharded: bool = False
    """Each rank's state is its own: with fewer ranks, or with more, it is cut anew."""
    is_rigid: bool = False
    """It is split in a way that cannot be cut anew."""
    cuts: tuple[Cut, ...] = ()
    skipped: tuple[int, ...] = ()
    poison: tuple[int, int] = (0, 0)  # step whose loss was bad, and how often

    @property
    def active(self) -> tuple[tuple[int, Rank], ...]:
        """The ranks that count, with their numbers."""
        return tuple((n, rank) for n, rank in enumerate(self.ranks) if not rank.retired)

    @property
    def may_resize(self) -> bool:
        """Whether it can go on with fewer ranks, or with more."""
        return self.is_session and not self.is_rigid


# events


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A process of a rank runs."""

    rank: int
    life: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stood:
    """A rank has no group and can restore these steps."""

    rank: int
    life: int
    generation: int
    """0 from a process that has not been in a group yet."""
    steps: Mapping[int, str] = field(default_factory=dict)
    """step -> source."""
    sharded: bool = False
    born: Mapping[int, int] = field(default_factory=dict)
    """step -> generation in which it was kept, where that is known."""
    found: Mapping[int, Mapping[int, int]] | None = None
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
class Stumbled:
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
class Poisoned:
    """A rank's loss is not finite, or far from what it was: the step is not to count."""

    rank: int
    generation: int
    step: int
    batch: int
    error: str
    replays: int | None = None
    """How often the batch is tried again; None: as the limits say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrupt:
    """Replicas that must be alike are not; `ranks`, as numbered in the group, differ from most."""

    generation: int
    step: int
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A rank has nothing more to do and waits to leave."""

    rank: int
    life: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """A rank's process has ended. Negative code: by that signal."""

    rank: int
    life: int
    code: int
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGone:
    """A node does not answer any more."""

    node: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Distrusted:
    """A node is to be left, although it answers."""

    node: NodeId
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
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


Event = (
    Started | Stood | Resumed | Committed | Stumbled | Hung | Poisoned | Corrupt | Finished
    | Exited | NodeGone | Distrusted | Moved | Shrunk | Resized | Tick
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawn:
    """Start a process for a rank."""

    rank: int
    node: NodeId
    life: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """Tell a rank to leave its group."""

    rank: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """Tell every rank to form the group of this generation and go on after `step`."""

    generation: int
    step: int
    skipped: tuple[int, ...] = ()
    """Batches that are left out."""
    fresh: tuple[int, ...] = ()
    """Ranks that get their state from one that has it."""
    pieces: tuple[int, ...] = ()
    """Ranks, then and now, whose shards of that step are cut anew; none: each takes its own."""
    born: int = 0
    """The generation before which those shards do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seek:
    """Ask a rank that stands what can be had of others that left; it answers with Stood."""

    rank: int
    generation: int
    seats: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clear:
    """Have keepers forget what they hold of ranks that have left."""

    seats: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """End a rank's process: this life of it, on this node."""

    rank: int
    node: NodeId
    life: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindPlaces:
    """Find places for these ranks by the first rung that will do; answer with Moved or Shrunk."""

    ranks: tuple[int, ...]
    rungs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gasp:
    """Nothing else is left: have those that live store what they hold before they end."""

    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Tell every rank that it may end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReceipt:
    """A recovery is complete."""

    fault: Fault
    generation: int
    resumed_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The gang is over."""

    reason: EndReason
    detail: str


Command = Spawn | Halt | Go | Seek | Clear | Kill | FindPlaces | Gasp | Leave | WriteReceipt | End
