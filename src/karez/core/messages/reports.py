"""Reports: what a process on a node, or its node agent, tells the controller of its workload."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, get_args

from karez.core.codec import Count, Finite, Step
from karez.core.messages.greetings import Refusal
from karez.core.messages.wire import by_type


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedReport:
    """The process runs. From its node agent."""

    TYPE: ClassVar[str] = "started"
    pid: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitReport:
    """The process has ended. From its node agent."""

    TYPE: ClassVar[str] = "exit"
    code: int
    """Exit code; negative: by that signal."""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyReport:
    """The rank has left its group, and can restore these steps."""

    TYPE: ClassVar[str] = "ready"
    generation: Step
    """The generation that it left; 0: the process has not been in a group yet."""
    steps: Mapping[Step, str]
    """Step -> source of the state, nearest first: one of recovery.state.SOURCES."""
    sharded: bool = False
    created_generation: Mapping[Count, Count] = field(default_factory=dict)
    """Step -> generation in which its snapshot was taken, where that is known."""
    shards_found: Mapping[Count, Mapping[Count, Count]] | None = None
    """Departed rank -> step of a shard -> its generation; None: not asked for."""
    snapshot_every: Count = 1
    """Steps between two snapshots in the generation that ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumedReport:
    """The rank is in its group, and has restored the common step."""

    TYPE: ClassVar[str] = "resumed"
    generation: Step
    step: Step
    losses: tuple[tuple[Step, Finite], ...] = ()
    """(step, loss) of the newest steps before, which control may have missed."""
    rigid: bool = False
    """The state is split in a way that cannot be resharded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitReport:
    """The rank has completed a step."""

    TYPE: ClassVar[str] = "commit"
    generation: Step
    step: Step
    loss: Finite
    busy_s: Finite = 0.0
    """Seconds of the step that the rank did not wait for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveFailedReport:
    """A collective of the rank has failed, or its group could not be formed."""

    TYPE: ClassVar[str] = "collective-failed"
    generation: Step
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLossReport:
    """The loss or the gradients of a step are not finite, or far from those before."""

    TYPE: ClassVar[str] = "bad-loss"
    generation: Step
    step: Step
    batch: Step
    error: str
    replays: Count
    """How often the batch is tried again before it is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaMismatchReport:
    """Replicas of the model differ that must be equal."""

    TYPE: ClassVar[str] = "replica-mismatch"
    generation: Step
    step: Step
    ranks: tuple[Count, ...]
    """The minority, as numbered in the group; none: there is no majority."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedReport:
    """The rank has completed its training, and waits for ExitOrder."""

    TYPE: ClassVar[str] = "finished"
    generation: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalStepsReport:
    """How many steps the training will have."""

    TYPE: ClassVar[str] = "total-steps"
    steps: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressReport:
    """What the process does beside its steps, and how far it is."""

    TYPE: ClassVar[str] = "progress"
    what: str
    done: Count = 0
    of: Count = 0
    """0: nobody knows."""
    failed: Count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeReport:
    """What whoever started the job should know of its result."""

    TYPE: ClassVar[str] = "notice"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointReport:
    """The rank has written a part of a checkpoint on its node."""

    TYPE: ClassVar[str] = "checkpoint"
    step: Step
    path: str
    world: Count
    """Ranks whose shards make up the step; 0: it is not part of a set of shards."""
    whole: bool
    """Whether all ranks can use it."""
    held_s: Finite
    """Seconds for which the training was held up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RendezvousReport:
    """The rendezvous store of a gang listens."""

    TYPE: ClassVar[str] = "rendezvous"
    address: str
    generation: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class ListeningReport:
    """An engine listens."""

    TYPE: ClassVar[str] = "listening"
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemoryReport:
    """The most memory that an engine has taken: of its devices, or of its host without any."""

    TYPE: ClassVar[str] = "engine-memory"
    bytes: Count


AgentReport = StartedReport | ExitReport
"""Reports that only a node agent may make."""
ProcessReport = (
    ReadyReport
    | ResumedReport
    | CommitReport
    | CollectiveFailedReport
    | BadLossReport
    | ReplicaMismatchReport
    | FinishedReport
    | TotalStepsReport
    | ProgressReport
    | NoticeReport
    | CheckpointReport
    | RendezvousReport
    | ListeningReport
    | EngineMemoryReport
    | Refusal
)
"""Reports of processes."""
Report = AgentReport | ProcessReport

PROCESS_REPORTS: Final[Mapping[str, type[ProcessReport]]] = by_type(get_args(ProcessReport))
REPORTS: Final[Mapping[str, type[Report]]] = by_type(
    (*get_args(AgentReport), *get_args(ProcessReport))
)
