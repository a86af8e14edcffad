"""Workloads: what jobs and services have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

from karez.core.grants import Grant
from karez.core.nodes import NodeId

WorkloadId = NewType("WorkloadId", str)


class WorkloadKind(StrEnum):
    """Purpose of a workload."""

    TRAIN = "train"
    BATCH = "batch"
    SERVE = "serve"


class State(StrEnum):
    """State of a workload, from its submission to its end."""

    HELD = "held"
    """Not in the queue yet: other jobs have to end first."""
    QUEUED = "queued"
    PLACED = "placed"
    STARTING = "starting"
    RUNNING = "running"
    RECOVERING = "recovering"
    PREEMPTING = "preempting"
    """Asked to make room: it stores a step and waits in the queue again."""
    IDLE = "idle"
    """A service without a replica: its next request starts one."""
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @classmethod
    def _missing_(cls, value: object) -> "State | None":
        return cls.PREEMPTING if value == "yielding" else None  # its name in karez 0.1


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
WAITING = frozenset({State.HELD, State.QUEUED})
LIVE = frozenset(State) - ENDED
ACTIVE = LIVE - WAITING - {State.IDLE}


class EndReason(StrEnum):
    """Why a workload ended, for retry rules and for people."""

    DONE = "done"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    USER_ERROR = "user-error"
    CRASHED = "crashed"
    NODE_LOST = "node-lost"
    TOO_MANY_FAULTS = "too-many-faults"
    TIMED_OUT = "timed-out"
    START_FAILED = "start-failed"
    INPUT_MISSING = "input-missing"
    OUTPUT_LOST = "output-lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankView:
    """One process of a workload, as last seen."""

    rank: int
    node: NodeId
    pid: int = 0
    state: str = "starting"
    step: int = 0
    devices: str = ""
    url: str = ""
    since: float | None = None
    """Since when a replica of a service is in its state, in UTC epoch seconds."""
    memory_bytes: int = 0
    """As in the Status of a replica."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a job does beside its steps, and how far it is."""

    what: str
    done: int = 0
    of: int = 0
    """0: nobody knows."""
    failed: int = 0
    """How many of those that are done have failed."""

    def __str__(self) -> str:
        if not self.of:
            return self.what
        failed = f", {self.failed:,} failed" if self.failed else ""
        return f"{self.what}: {self.done:,} of {self.of:,}{failed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Progress of a workload, its processes and its results, as last seen."""

    reason: str = ""
    """Why the workload waits, or what it is doing, in words."""
    end: EndReason | None = None
    ranks: tuple[RankView, ...] = ()
    generation: int = 0
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    progress: Progress | None = None
    """What the job does while it completes no steps."""
    notices: tuple[str, ...] = ()
    """What should be known of the result, such as rows that were cut."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Output name -> artifact id."""
    retries: int = 0
    ran_s: float = 0.0
    """How long the workload held devices before it went back to the queue."""
    checkpoint_every_s: float = 0.0
    """Seconds between two stored checkpoints, chosen by the rate of failures and their cost."""
    memory_bytes: int = 0
    """The most memory that the engine of a replica has taken; 0: it has not told."""


INITIAL_STATUS = Status()
"""Status of a workload that was just submitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Grants of one workload; a new epoch fences every process that acts on an older one."""

    workload: WorkloadId
    epoch: int
    grants: tuple[Grant, ...]
    """`grants[rank]` is what worker `rank` holds."""
    since: float = 0.0
