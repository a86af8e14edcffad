"""Jobs: training and batch workloads, and how users ask for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from karez.core import environment
from karez.core.arrays import (
    ArrayTask,
    count_ended,
    describe_array,
    parse_array,
    state_of_array,
)
from karez.core.containers import check_image
from karez.core.dependencies import Dependency
from karez.core.devices import IN_BYTES
from karez.core.gangs import ONE_WORKER, GangSpec
from karez.core.job_outputs import parse_output
from karez.core.names import check_folder_name, check_name, safe_name
from karez.core.priorities import check_priority
from karez.core.units import show_seconds
from karez.core.validation import FORBID
from karez.core.workloads import (
    INITIAL_STATUS,
    WAITING,
    EndReason,
    Progress,
    State,
    Status,
    WorkloadId,
    WorkloadKind,
)

Scalar = str | int | float | bool

RESERVED = frozenset(
    {
        *("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        *(environment.JOB, environment.KEY_NAME, environment.EPOCH, environment.GENERATION),
        *(environment.INPUTS, environment.OUT, environment.CODE, environment.RESTORE),
        *(environment.CHECKPOINT_DIR, environment.SETTINGS, environment.INPUT_IDS),
        *(environment.NODE, environment.ADDRESS, environment.CACHE, environment.STEWARD),
        *(environment.ARRAY, environment.ARRAY_INDEX),
        *(environment.DEVICE, environment.DEVICE_MILLI, environment.POOLED_MEMORY),
        *(environment.ROLE, environment.ROLE_RANK, environment.ROLE_SIZE, environment.ROLES),
        *(environment.SNAPSHOT_FILE, environment.REPLICA_SERVER, environment.REPLICA_SERVERS),
        *(environment.REPLICA_TOKEN, environment.PROCESS_TOKEN),
    }
)
"""Variables by which a process finds its gang, its node and its folders."""
OF_DEVICES = "_VISIBLE_DEVICES"
"""End of the names by which vendors' software is told what it may use."""
MAX_SECONDS = 100 * 365.25 * 86_400
LADDER = ("retry", "in-place", "replace", "shrink", "restart")
"""The recovery rungs that exist, from the gentlest to the hardest."""
MAX_STRING_BYTES = 128 * 1024 - 1
"""Longest argument or variable of a process (Linux: MAX_ARG_STRLEN, with its end)."""
MAX_TEXT_BYTES = 512 * 1024
"""Most bytes of a job's commands, variables and settings together."""
MAX_PEERS = 8
"""Copies of a rank's state beside its own: each costs its size in memory and traffic."""


SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "AUTH")
MASK = "***"


def masked(job: "Job") -> "Job":
    """The job without the values of variables whose names say that they are secret."""
    env = {
        name: MASK if any(word in name.upper() for word in SECRET_WORDS) else value
        for name, value in job.spec.env.items()
    }
    return job if env == job.spec.env else replace(job, spec=replace(job.spec, env=env))


def problem_with_variable(name: str) -> str:
    """Why a job cannot have a variable of this name; empty if it can."""
    if not name or "=" in name or "\0" in name:
        return f"{name!r} is no name of an environment variable"
    if name in RESERVED or name.endswith(OF_DEVICES):
        return f"{name} is set by the cloud for each process"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a job starts over after a failure, and after which causes."""

    __pydantic_config__: ClassVar[Any] = FORBID

    limit: int = 0
    causes: tuple[EndReason, ...] = (EndReason.NODE_LOST, EndReason.CRASHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A job as a user asks for it: a command or a recipe, its gang, its inputs."""

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    project: str = "default"
    kind: WorkloadKind = WorkloadKind.BATCH
    command: tuple[str, ...] = ()
    recipe: str = ""
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    gang: GangSpec = ONE_WORKER
    code: str = ""
    """Artifact id of the uploaded working folder."""
    environment: str = ""
    """Environment with the job's Python packages, by name or id; empty: those of the node."""
    image: str = ""
    """Container image that the job's processes run in; empty: none."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Name of the folder the job finds under `inputs/` -> artifact name or id, or `jobs/JOB/OUTPUT`
    for what another job makes (core.job_outputs)."""
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    priority: int = 0
    max_duration_s: float | None = None
    expected_duration_s: float | None = None
    """Estimated running time; queue order and backfill use it."""
    deadline_s: float | None = None
    """Seconds from submission until the job should have ended."""
    preemptible: bool = False
    """Whether workloads far ahead in the queue may preempt the job; it goes on later."""
    retry: Retry = Retry()
    ladder: tuple[str, ...] = LADDER
    """The recovery rungs that may be used."""
    ladder_fixed: bool = False
    """Whether rungs are tried in the order given; else the cheapest by estimate comes first."""
    peers: int = 1
    """Other nodes that keep a copy of a rank's state: so many may be lost at once."""
    after: tuple[Dependency, ...] = ()
    """Jobs that must have ended before this one is queued."""
    array: str = ""
    """Indices of an array of jobs, such as `0-99%10` (core.arrays); empty: one job."""
    calls_models: bool = False
    """Whether its processes get a key to call the models of its project: they find it in KAREZ_KEY
    and OPENAI_API_KEY, and the gateway in KAREZ_GATEWAY and OPENAI_BASE_URL."""
    chaos: bool = False
    """Whether an admin may inject faults into the job."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.kind == WorkloadKind.SERVE:
            raise ValueError("a job trains or runs a batch; deploy a service for kind = 'serve'")
        if bool(self.command) == bool(self.recipe):
            raise ValueError("give either a command or a recipe")
        if any(need.kind in IN_BYTES for need in self.gang.each):
            raise ValueError("workers need a device to run on; ask for memory alone in a role")
        if self.array:
            parse_array(self.array)
        if self.image:
            check_image(self.image)
            if self.recipe or self.environment:
                raise ValueError("an image brings all its packages: no recipe, no environment")
        check_priority(self.priority)
        for name, text in self.inputs.items():
            check_folder_name(name)
            parse_output(text)
        self._check_texts()
        self._check_times()
        self._check_recovery()

    def _check_texts(self) -> None:
        """Refuse what no process could be started with."""
        commands = [*self.command, *(part for role in self.gang.roles for part in role.command)]
        variables = [f"{name}={value}" for name, value in self.env.items()]
        settings = [f"{name}={value}" for name, value in self.settings.items()]
        texts = [*commands, *variables, *settings, *self.secrets]
        sizes = [len(text.encode(errors="replace")) for text in texts]
        if max(sizes, default=0) > MAX_STRING_BYTES or sum(sizes) > MAX_TEXT_BYTES:
            raise ValueError(
                f"commands, variables and settings have up to {MAX_STRING_BYTES:,} bytes each, and "
                f"{MAX_TEXT_BYTES:,} together; give what is longer as an input"
            )
        if any("\0" in text for text in texts):
            raise ValueError("a command, variable or setting cannot have a NUL character")

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
class Job:
    """A submitted job, or an array of jobs seen as one."""

    id: WorkloadId
    spec: JobSpec
    state: State = State.QUEUED
    status: Status = INITIAL_STATUS
    owner: str = ""
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    array: ArrayTask | None = None
    """Which job of an array this is, or that it stands for a whole array."""
    unreadable: str = ""
    """Why what the store has of the job cannot be read; then `spec` has its name and project."""


UNREADABLE = "what is stored of it cannot be read"
"""Begin of the reason of a workload that ends for this."""


def unreadable_job_spec(name: str, project: str) -> JobSpec:
    """What stands for a specification that cannot be read."""
    return JobSpec(name=safe_name(name), project=project, command=("unreadable",))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayProgress:
    """How far the jobs of an array are."""

    states: Mapping[State, int] = field(default_factory=dict)
    started_at: float | None = None
    """When its first job started."""
    ended_at: float | None = None
    """When the last one that has ended did."""
    first_failed: int | None = None
    """The lowest index of a job that failed."""

    def merged(self, other: "ArrayProgress") -> "ArrayProgress":
        """The progress of both together."""
        return ArrayProgress(
            states={**self.states, **other.states},
            started_at=min(filter(None, (self.started_at, other.started_at)), default=None),
            ended_at=max(filter(None, (self.ended_at, other.ended_at)), default=None),
            first_failed=other.first_failed if self.first_failed is None else self.first_failed,
        )


def array_as_job(first: Job, progress: ArrayProgress) -> Job:
    """Show a whole array as one job, from its first job and how far all are."""
    if first.array is None:
        raise ValueError(f"{first.id} is of no array")
    state, ended = state_of_array(progress.states), count_ended(progress.states)
    reason = describe_array(progress.states)
    if progress.first_failed is not None:
        reason += f"; the first that failed is {first.array.id}_{progress.first_failed}"
    elif first.state in WAITING and first.status.reason:
        reason += f"; {first.status.reason}"
    total = sum(progress.states.values())
    return Job(
        id=WorkloadId(first.array.id),
        spec=first.spec,
        state=state,
        status=Status(reason=reason, progress=Progress(what="jobs ended", done=ended, of=total)),
        owner=first.owner,
        created_at=first.created_at,
        started_at=progress.started_at,
        ended_at=progress.ended_at if ended == total else None,
        array=ArrayTask(id=first.array.id, states=progress.states),
    )
