"""The state of a gang: its ranks, the fault being recovered from, its phase and its limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from karez.core.jobs import LADDER
from karez.core.nodes import NodeId
from karez.training.recovery.events import CollectiveFailed
from karez.training.recovery.ladder import PRIOR_S
from karez.training.recovery.limits import Limits
from karez.training.recovery.shard_layouts import ShardLayout

NOWHERE = NodeId("")
SOURCES = ("shm", "peer", "replica", "storage", "start")
"""Where a rank's state can come from, nearest first. From a `replica`: the rank has its own part
(random generators, cursor), and receives the model from another rank that has all of it."""


class Phase(StrEnum):
    """Phase of a gang."""

    QUIESCING = "quiescing"
    """Waiting until every rank has left its group and has reported the steps it can restore."""
    PLACING = "placing"
    """Waiting for devices for lost ranks."""
    RESUMING = "resuming"
    """The generation has started; its first step is not complete on all ranks."""
    RUNNING = "running"
    DRAINING = "draining"
    """All ranks are done and have been told to exit."""
    DONE = "done"
    FAILED = "failed"


HEALING = frozenset({Phase.QUIESCING, Phase.PLACING, Phase.RESUMING})
"""Phases of a recovery, if there is a fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One rank, as last reported."""

    node: NodeId
    home: NodeId = NOWHERE
    """The node it ran on before a new node is searched, if that node still answers."""
    attempt: int = 1
    """Number of its process: 1, and one more for each restart."""
    alive: bool = False
    quiesced: bool = False
    """Has left its group in this generation and waits for StartGeneration."""
    steps: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()
    """Where each step of `steps` would be restored from, in the same order."""
    shards_found: Mapping[int, Mapping[int, int]] | None = None
    """Available shards of departed ranks, as in ReadyToRestore; None: not queried."""
    query_pending: bool = False
    """Has not answered QueryShards yet."""
    started_once: bool = False
    """This attempt was ready at least once: it is past its start."""
    committed: int = 0
    finished: bool = False
    exited: bool = False
    retired: bool = False
    """Left the gang when it shrank; its number is not used again."""
    replicas_dropped: bool = False
    """Retired, and no rank needs its snapshots any more."""
    joining: bool = False
    """New in the gang: has no state of its own until its first step."""
    state_corrupt: bool = False
    """Has a wrong state: it must receive that of another rank."""
    resumed: bool = False
    """Is in its group and has its state in this generation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The fault being recovered from, with all that its receipt needs."""

    cause: str
    ranks: tuple[int, ...]
    rung: str
    detected_at: float
    step_before: int
    code: str = "exit"
    """Kind of fault: one of core.receipts.CODES."""
    confirmed_at: float = 0.0
    decided_at: float = 0.0
    restored_at: float = 0.0
    source: str = ""
    step_restored: int = 0
    nodes: tuple[NodeId, ...] = ()
    """Nodes of the lost ranks."""
    skipped: tuple[int, ...] = ()
    snapshot_every: int = 1
    """Steps between two snapshots before the fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """The protocol's whole state. Steps count completed optimizer steps."""

    ranks: tuple[Rank, ...]
    generation: int = 1
    phase: Phase = Phase.QUIESCING
    since: float = 0.0
    fault: Fault | None = None
    faults: int = 0
    """Recoveries since the last new step."""
    max_committed_step: int = 0
    """Highest step that was ever complete on all ranks."""
    restore_step: int = 0
    """The step that this generation continued from."""
    limits: Limits = field(default_factory=Limits)
    slowest_start_s: float = 0.0
    """The longest time that a process took until it was first ready."""
    is_session: bool = False
    """False until a rank was ready: a plain script, which only a full restart recovers."""
    suspect: CollectiveFailed | None = None
    """A rank's collective failed; the cause may become known in a moment."""
    suspect_at: float = 0.0
    ladder: tuple[str, ...] = LADDER
    ladder_fixed: bool = False
    costs: Mapping[str, float] = field(default_factory=lambda: dict(PRIOR_S))
    """Rung -> expected cost in seconds."""
    recent_failures: tuple[tuple[NodeId, float], ...] = ()
    """(node, time) of ranks lost within ladder.WINDOW_S."""
    no_move_until: float = 0.0
    """Until then no rank moves to another node: none was free."""
    is_sharded: bool = False
    """Each rank has a shard of the state, which a change of size reshards."""
    is_rigid: bool = False
    """The state is split in a way that cannot be resharded."""
    shard_layouts: tuple[ShardLayout, ...] = ()
    skipped: tuple[int, ...] = ()
    bad_loss_repeats: tuple[int, int] = (0, 0)
    """(step whose loss was bad, how often in a row)."""

    @property
    def active(self) -> tuple[tuple[int, Rank], ...]:
        """The ranks that have not retired, with their numbers."""
        return tuple((n, rank) for n, rank in enumerate(self.ranks) if not rank.retired)

    @property
    def may_resize(self) -> bool:
        """Whether the gang can continue with fewer ranks, or with more."""
        return self.is_session and not self.is_rigid


def with_rank(gang: Gang, number: int, **changes: object) -> Gang:
    """A gang with one rank changed."""
    ranks = list(gang.ranks)
    ranks[number] = replace(ranks[number], **changes)  # type: ignore[arg-type]  # Rank's fields
    return replace(gang, ranks=tuple(ranks))
