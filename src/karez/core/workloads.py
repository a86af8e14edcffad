"""Jobs and services: what is asked for, and what can be seen of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, NewType

from karez.core.resources import FORBID, IN_BYTES, Grant, NodeId, ResourceRequest
from karez.core.units import MILLI, show_seconds

WorkloadId = NewType("WorkloadId", str)
Scalar = str | int | float | bool

NAME_LIMIT = 63
"""Longest workload name: that of a DNS label (RFC 1035), so names can become host names."""


def check_name(name: str) -> None:
    """Refuse names that could not be a file, a host or a model name.

    Raises:
        ValueError: Empty, too long, or with other characters than a-z, 0-9, `-`, `.` and `_`.
    """
    fine = name and name[0].isalnum() and all(c.isalnum() or c in "-._" for c in name)
    if not fine or not name.isascii() or len(name) > NAME_LIMIT or name != name.lower():
        raise ValueError(
            f"invalid name {name!r}: use a-z, 0-9, '-', '.' and '_', up to {NAME_LIMIT}, "
            "a letter or digit first"
        )


MAX_SECONDS = 100 * 365.25 * 86_400
MAX_WORKERS = 100_000
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
    PREEMPTING = "preempting"
    """Asked to make room: it stores a step and waits in the queue again."""
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @classmethod
    def _missing_(cls, value: object) -> "State | None":
        return cls.PREEMPTING if value == "yielding" else None  # its name in karez 0.1


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


LADDER = ("retry", "in-place", "replace", "shrink", "restart")
"""The recovery rungs that exist, from the gentlest to the hardest."""
MAX_PEERS = 8
"""Copies of a rank's state beside its own: each costs its size in memory and traffic."""


SPARE = "spare"
"""The role of what a gang holds in reserve."""
MAX_ROLES = 16
"""Roles of one gang; each has needs of its own."""
MAX_SPARES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAffinity:
    """Which nodes will do, each said as a node's name or as `label=value`."""

    __pydantic_config__: ClassVar[Any] = FORBID

    on: tuple[str, ...] = ()
    """One of these; empty: any node."""
    off: tuple[str, ...] = ()
    """None of these."""

    def __post_init__(self) -> None:
        both = sorted(set(self.on) & set(self.off))
        if both:
            raise ValueError(f"{both[0]!r} is in both `on` and `off`: no node will do")
        if not all((*self.on, *self.off)):
            raise ValueError("name a node, or a label as label=value, in `on` and `off`")

    def show(self) -> str:
        """In words."""
        words = [f"on {' or '.join(self.on)}"] if self.on else []
        return " and ".join([*words, *([f"not on {' or '.join(self.off)}"] if self.off else [])])


ANYWHERE = NodeAffinity()


@dataclass(frozen=True, slots=True, kw_only=True)
class GangRole:
    """More workers of a gang, with needs of their own: loaders, or memory on other nodes.

    They start and end with the gang. A role that asks for memory or storage alone is held for
    the gang and runs nothing.
    """

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    workers: int = 1
    each: tuple[ResourceRequest, ...] = (ResourceRequest(),)
    command: tuple[str, ...] = ()
    """What they run; empty: the gang's own command."""
    among: NodeAffinity = ANYWHERE

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.name in (SPARE, "worker"):
            raise ValueError(f"a role cannot be called {self.name!r}; the gang has these already")
        if not 1 <= self.workers <= MAX_WORKERS:
            raise ValueError(f"role {self.name} needs 1 to {MAX_WORKERS} workers")
        if not self.each:
            raise ValueError(f"role {self.name} needs at least one alternative in `each`")


@dataclass(frozen=True, slots=True, kw_only=True)
class GangSpec:
    """Workers that start together or not at all; elastic between `min` and `max`.

    It starts with up to `want`. Where `max` is given it grows to that while nobody else needs the
    devices, and gives them back, down to `min`, to who is ahead of it in line.
    """

    __pydantic_config__: ClassVar[Any] = FORBID

    min: int = 1
    want: int = 1
    max: int | None = None
    each: tuple[ResourceRequest, ...] = (ResourceRequest(),)
    topology: Topology = Topology.ANY
    among: NodeAffinity = ANYWHERE
    roles: tuple[GangRole, ...] = ()
    spares: int = 0
    """Workers' places held in reserve, on other nodes where there are any: as many as fit."""

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.want:
            raise ValueError(f"workers need 1 <= min <= want, got min={self.min} want={self.want}")
        if self.max is not None and self.max < self.want:
            raise ValueError(f"workers need want <= max, got want={self.want} max={self.max}")
        if self.most > MAX_WORKERS:
            raise ValueError(f"{self.most} workers are more than {MAX_WORKERS}")
        if not self.each:
            raise ValueError("a worker needs at least one alternative in `each`")
        if not 0 <= self.spares <= MAX_SPARES:
            raise ValueError(f"spares are between 0 and {MAX_SPARES}, not {self.spares}")
        names = [role.name for role in self.roles]
        if len(set(names)) != len(names) or len(names) > MAX_ROLES:
            raise ValueError(f"a gang has up to {MAX_ROLES} roles, each with a name of its own")

    @property
    def most(self) -> int:
        """Workers it may grow to."""
        return self.want if self.max is None else self.max


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
    deadline_s: float | None = None
    """When it should have ended, in seconds after it was submitted."""
    preemptible: bool = False
    """Whether it may be stopped for what is far ahead of it in line, and go on later."""
    retry: Retry = Retry()
    ladder: tuple[str, ...] = LADDER
    """The recovery rungs that may be used."""
    ladder_fixed: bool = False
    """Try them in the order given; else the one that is expected to cost least comes first."""
    peers: int = 1
    """On how many other nodes a rank's state is kept: so many may be lost at once."""
    chaos: bool = False
    """Whether an admin may break it on purpose."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.kind == WorkloadKind.SERVE:
            raise ValueError("a job trains or runs a batch; deploy a service for kind = 'serve'")
        if bool(self.command) == bool(self.recipe):
            raise ValueError("give either a command or a recipe")
        if any(need.kind in IN_BYTES for need in self.gang.each):
            raise ValueError("workers need a device to run on; ask for memory alone in a role")
        self._check_times()
        self._check_recovery()

    def _check_recovery(self) -> None:
        unknown = sorted(set(self.ladder) - set(LADDER))
        if unknown:
            raise ValueError(f"no recovery rung {unknown[0]!r}; there are {', '.join(LADDER)}")
        if len(set(self.ladder)) != len(self.ladder):
            raise ValueError("a recovery rung is named twice")
        if not 0 <= self.peers <= MAX_PEERS:
            raise ValueError(f"peers are between 0 and {MAX_PEERS}, not {self.peers}")

    def _check_times(self) -> None:
        expected, limit, deadline = self.expected_duration_s, self.max_duration_s, self.deadline_s
        times = {"max_duration": limit, "expected_duration": expected, "deadline": deadline}
        for name, seconds in times.items():
            if seconds is not None and not 0 < seconds <= MAX_SECONDS:
                raise ValueError(f"{name} must be positive and up to 100 years, got {seconds:g} s")
        if expected and limit and expected > limit:
            raise ValueError("expected_duration is longer than max_duration, which would end it")
        if expected and deadline and expected > deadline:
            raise ValueError(
                f"it is expected to run for {show_seconds(expected)} and cannot end within "
                f"{show_seconds(deadline)}; give it more workers, or a later deadline"
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
    checkpoint_every_s: float = 0.0
    """How often it stores a checkpoint, as its failures and their cost have it."""


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
    each: tuple[ResourceRequest, ...] = (ResourceRequest(milli=MILLI),)
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
