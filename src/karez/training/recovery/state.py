"""The state of a gang: its ranks, the fault being recovered from, its phase and its limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from karez.core.nodes import NodeId
from karez.training.recovery.events import CollectiveFailed
from karez.training.recovery.ladder import PRIOR_S
from karez.training.recovery.limits import Limits
from karez.training.recovery.shard_layouts import ShardLayout

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
    attempt: int = 1
    """Which process: counts restarts."""
    alive: bool = False
    quiesced: bool = False
    """Has left its group in this generation and waits for the word."""
    steps: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()
    """Where each restorable step would come from, beside `steps`."""
    shards_found: Mapping[int, Mapping[int, int]] | None = None
    """What can be had of ranks that have left, as in Stood; None: not asked."""
    query_pending: bool = False
    """Was asked by Seek, and has not answered yet."""
    started_once: bool = False
    """Has stood still at least once in this life: it is past its start."""
    committed: int = 0
    finished: bool = False
    exited: bool = False
    retired: bool = False
    """Given up when the gang shrank; its number is not used again."""
    replicas_dropped: bool = False
    """Retired, and nobody needs its snapshots any more."""
    joining: bool = False
    """New in the gang: it has no state of its own until its first step."""
    state_corrupt: bool = False
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
    max_committed_step: int = 0
    """Highest step ever complete on all ranks."""
    restore_step: int = 0
    """The step that this generation went on from."""
    limits: Limits = field(default_factory=Limits)
    slowest_start_s: float = 0.0
    """How long a process took at most until it stood for the first time."""
    is_session: bool = False
    """False until a rank has stood: a plain script, which only a full restart heals."""
    suspect: CollectiveFailed | None = None
    """A rank's collective broke; whose fault it was may become known in a moment."""
    suspect_at: float = 0.0
    ladder: tuple[str, ...] = RUNGS
    ladder_fixed: bool = False
    costs: Mapping[str, float] = field(default_factory=lambda: dict(PRIOR_S))
    """Rung -> seconds that it is expected to cost."""
    recent_failures: tuple[tuple[NodeId, float], ...] = ()
    """Where and when ranks were lost within ladder.WINDOW_S."""
    no_move_until: float = 0.0
    """Until then there is no other place for anyone."""
    is_sharded: bool = False
    """Each rank's state is its own: with fewer ranks, or with more, it is cut anew."""
    is_rigid: bool = False
    """It is split in a way that cannot be cut anew."""
    shard_layouts: tuple[ShardLayout, ...] = ()
    skipped: tuple[int, ...] = ()
    bad_loss_repeats: tuple[int, int] = (0, 0)  # step whose loss was bad, and how often

    @property
    def active(self) -> tuple[tuple[int, Rank], ...]:
        """The ranks that count, with their numbers."""
        return tuple((n, rank) for n, rank in enumerate(self.ranks) if not rank.retired)

    @property
    def may_resize(self) -> bool:
        """Whether it can go on with fewer ranks, or with more."""
        return self.is_session and not self.is_rigid
