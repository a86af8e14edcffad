"""Jobs and services: what is asked for, and what can be seen of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, NewType

from karez.core.resources import FORBID, Grant, Need, NodeId
from karez.core.units import MILLI

WorkloadId = NewType("WorkloadId", str)
Scalar = str | int | float | bool

NAME_LIMIT = 63
"""Longest workload name: that of a DNS label (RFC 1035), so names can become host names."""


MOST_WORKERS = 100_000
"""Workers of one gang: the design goes to 100,000 devices."""


class WorkloadKind(StrEnum):
    """What a workload is for."""

    TRAIN = "train"
    BATCH = "batch"
    SERVE = "serve"


class State(StrEnum):
    """Where a workload is in its life."""

    QUEUED = "queued"
    PLACED = "placed"
    STARTING = "starting"
    RUNNING = "running"
    RECOVERING = "recovering"
    YIELDING = "yielding"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
ACTIVE = frozenset(State) - ENDED - {State.QUEUED}


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


class Topology(StrEnum):
    """Where a gang's workers should stand towards each other."""

    ANY = "any"
    PREFER_SUPERNODE = "prefer:supernode"
    REQUIRE_SUPERNODE = "require:supernode"
    SPREAD = "spread"


LADDER = ("in-place", "replace", "shrink", "restart")
"""The recovery rungs that exist, in the order they are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GangSpec:
    """Workers that start together or not at all; elastic between `min` and `want`."""

    __pydantic_config__: ClassVar[Any] = FORBID

    min: int = 1
    want: int = 1
    each: tuple[Need, ...] = (Need(),)
    topology: Topology = Topology.ANY

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.want:
            raise ValueError(f"workers need 1 <= min <= want, got min={self.min} want={self.want}")
        if self.want > MOST_WORKERS:
            raise ValueError(f"{self.want} workers are more than {MOST_WORKERS}")
        if not self.each:
            raise ValueError("a worker needs at least one alternative in `each`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a job starts over after it failed, and after which causes."""

    __pydantic_config__: ClassVar[Any] = FORBID

    limit: int = 0
    causes: tuple[EndReason, ...] = (EndReason.NODE_LOST, EndReason.CRASHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What a user asks for: a command or a recipe, its gang, its inputs."""

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    project: str = "default"
    kind: WorkloadKind = WorkloadKind.BATCH
    command: tuple[str, ...] = ()
    recipe: str = ""
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    gang: GangSpec = GangSpec()
    code: str = ""
    """Artifact id of the uploaded working folder."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Name of the folder the job finds under `inputs/` -> artifact name or id."""
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    priority: int = 0
    max_duration_s: float | None = None
    expected_duration_s: float | None = None
    """How long it will run, as far as anyone knows: the line and backfill count on it."""
    preemptible: bool = False
    """Whether it may be stopped for what is far ahead of it in line, and go on later."""
    retry: Retry = Retry()
    ladder: tuple[str, ...] = LADDER

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.kind == WorkloadKind.SERVE:
            raise ValueError("a job trains or runs a batch; deploy a service for kind = 'serve'")
        if bool(self.command) == bool(self.recipe):
            raise ValueError("give either a command or a recipe")
        if self.max_duration_s is not None and self.max_duration_s <= 0:
            raise ValueError(f"max_duration must be positive, got {self.max_duration_s}")
        if self.expected_duration_s is not None and self.expected_duration_s <= 0:
            raise ValueError(f"expected_duration must be positive, got {self.expected_duration_s}")
        unknown = sorted(set(self.ladder) - set(LADDER))
        if unknown:
            raise ValueError(f"no recovery rung {unknown[0]!r}; there are {', '.join(LADDER)}")


def check_name(name: str) -> None:
    """Refuse names that could not be a file, a host or a model name.

    Raises:
        ValueError: Empty, too long, or with other characters than a-z, 0-9, `-`, `.` and `_`.
    """
    fine = name and name[0].isalnum() and all(c.isalnum() or c in "-._" for c in name)
    if not fine or not name.isascii() or len(name) > NAME_LIMIT or name != name.lower():
        raise ValueError(
            f"{name!r} is no name: use a-z, 0-9, '-', '.' and '_', up to {NAME_LIMIT}, "
            "a letter or digit first"
        )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the cloud knows of a workload right now."""

    reason: str = ""
    """Why it waits, or what it is doing, in words."""
    end: EndReason | None = None
    ranks: tuple[RankView, ...] = ()
    generation: int = 0
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Output name -> artifact id."""
    retries: int = 0
    ran_s: float = 0.0
    """How long it held devices before it went back to the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A submitted job."""

    id: WorkloadId
    spec: JobSpec
    state: State = State.QUEUED
    status: Status = Status()
    owner: str = ""
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """A model behind the gateway."""

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    model: str
    """Artifact name or id of the weights the engine loads."""
    project: str = "default"
    engine: str = "llamacpp"
    replicas: int = 1
    each: tuple[Need, ...] = (Need(milli=MILLI),)
    context_tokens: int = 2048
    parallel: int = 4
    priority: int = 10

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.replicas < 1 or self.context_tokens < 64 or self.parallel < 1:
            raise ValueError("a service needs replicas >= 1, context >= 64 tokens, parallel >= 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A deployed model."""

    id: WorkloadId
    spec: ServiceSpec
    state: State = State.QUEUED
    status: Status = Status()
    owner: str = ""
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What a workload holds; a new epoch fences whoever acts on an older one."""

    workload: WorkloadId
    epoch: int
    grants: tuple[Grant, ...]
    """`grants[rank]` is what worker `rank` holds."""
    since: float = 0.0
