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


class RankPhase(StrEnum):
    """Phase of a rank: of its present process, and in the gang's present generation."""

    ABSENT = "absent"
    """No process of it is known to run: one is being started, or it has no node yet."""
    STARTED = "started"
    """Its process runs and has not been ready yet, as that of a plain script never is."""
    LEAVING = "leaving"
    """It is past its start, and has to leave its group or to say what it can restore."""
    QUERIED = "queried"
    """It has left its group and was asked which shards of departed ranks it finds."""
    QUIESCED = "quiesced"
    """It has left its group in this generation and waits for StartGeneration."""
    RESTORING = "restoring"
    """The generation has started; it is not in its group yet."""
    TRAINING = "training"
    """It is in its group and has its state."""
    FINISHED = "finished"
    """It has completed its training and waits for ExitRanks."""
    EXITED = "exited"
    """Its process has ended, and nothing follows it."""
    RETIRED = "retired"
    """It left the gang when that shrank; its number is not used again."""
    FORGOTTEN = "forgotten"
    """Retired, and no rank needs its snapshots any more."""


LEFT = frozenset({RankPhase.RETIRED, RankPhase.FORGOTTEN})
"""Phases of a rank that is not in the gang any more."""
IN_SESSION = frozenset(
    {
        RankPhase.LEAVING,
        RankPhase.QUERIED,
        RankPhase.QUIESCED,
        RankPhase.RESTORING,
        RankPhase.TRAINING,
        RankPhase.FINISHED,
    }
)
"""Phases of a living process that is past its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One rank, as last reported."""

    node: NodeId
    phase: RankPhase = RankPhase.ABSENT
    home: NodeId = NOWHERE
    """The node it ran on before a new node is searched, if that node still answers."""
    attempt: int = 1
    """Number of its process: 1, and one more for each restart."""
    steps: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()
    """Where each step of `steps` would be restored from, in the same order."""
    shards_found: Mapping[int, Mapping[int, int]] | None = None
    """Available shards of departed ranks, as in ReadyToRestore; None: not queried."""
    committed: int = 0
    joining: bool = False
    """New in the gang: has no state of its own until its first step."""
    state_corrupt: bool = False
    """Has a wrong state: it must receive that of another rank."""

    @property
    def is_alive(self) -> bool:
        """Whether its present process is known to run."""
        return self.phase == RankPhase.STARTED or self.phase in IN_SESSION

    @property
    def has_left(self) -> bool:
        """Whether it is not in the gang any more."""
        return self.phase in LEFT


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
        return tuple((n, rank) for n, rank in enumerate(self.ranks) if not rank.has_left)

    def all_in(self, phase: RankPhase) -> bool:
        """Whether every active rank is in a phase."""
        return all(rank.phase == phase for _, rank in self.active)

    @property
    def may_resize(self) -> bool:
        """Whether the gang can continue with fewer ranks, or with more."""
        return self.is_session and not self.is_rigid


def with_phase(gang: Gang, number: int, phase: RankPhase) -> Gang:
    """A gang with one rank in this phase."""
    return with_rank(gang, number, phase=phase)


def with_rank(gang: Gang, number: int, **changes: object) -> Gang:
    """A gang with one rank changed."""
    ranks = list(gang.ranks)
    ranks[number] = replace(ranks[number], **changes)  # type: ignore[arg-type]  # Rank's fields
    return replace(gang, ranks=tuple(ranks))
