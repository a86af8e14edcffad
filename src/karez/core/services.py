"""Services: models behind the gateway, how users ask for them, and their replicas."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from karez.core.call_limits import NO_MINUTE_LIMITS, MinuteLimits
from karez.core.engines import AUTO, Adapter, Preference, Task
from karez.core.gangs import GangSpec
from karez.core.names import check_name, safe_name
from karez.core.priorities import SERVICE_PRIORITY, check_priority
from karez.core.probes import Probe
from karez.core.resource_requests import ResourceRequest
from karez.core.service_schedules import ReplicaSchedule
from karez.core.units import MILLI
from karez.core.validation import FORBID
from karez.core.workloads import INITIAL_STATUS, RankView, State, Status, WorkloadId

MAX_REPLICAS = 100_000
MAX_PARALLEL = 4096
READY = "ready"
"""State of the view of a replica that answers requests."""
MIN_TOKENS, MAX_TOKENS = 64, 2**24
MAX_ADAPTERS = 64
MAX_FALLBACKS = 8
MAX_SCHEDULES = 32
MIN_WAIT_S, MAX_WAIT_S = 0.01, 3600.0
MIN_IDLE_S, MAX_IDLE_S = 1.0, 365 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """A service as a user asks for it: a model, its engine, its replicas."""

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    model: str
    """Artifact name or id of the weights the engine loads."""
    project: str = "default"
    engine: str = AUTO
    """Which engine serves it; `auto`: one is chosen when it is deployed."""
    prefer: Preference = Preference.MEMORY
    """What counts in that choice."""
    environment: str = ""
    """Artifact name or id of the Python packages that the engine runs with; empty: its node's."""
    task: Task = Task.GENERATE
    adapters: tuple[Adapter, ...] = ()
    replicas: int = 1
    """How many it starts with."""
    min_replicas: int | None = None
    """Fewest that it scales down to; 0: it may end them all. None: `replicas`."""
    max_replicas: int | None = None
    """Most that it scales up to. None: `replicas`."""
    schedules: tuple[ReplicaSchedule, ...] = ()
    """Hours in which it has other bounds than these two."""
    idle_s: float = 300.0
    """Seconds without a request after which the last replica ends, if `min_replicas` is 0."""
    each: tuple[ResourceRequest, ...] = (ResourceRequest(milli=MILLI),)
    context_tokens: int = 2048
    parallel: int = 4
    priority: int = SERVICE_PRIORITY
    probe: Probe | None = None
    fallbacks: tuple[str, ...] = ()
    """Services of the project that are asked, in this order, what this one cannot answer."""
    hedge_s: float | None = None
    """After how many seconds without an answer another replica is asked too; None: never."""
    first_token_s: float | None = None
    """Target: 95 of 100 answers begin within so many seconds; None: there is none."""
    calls: MinuteLimits = NO_MINUTE_LIMITS
    """Calls of it by all keys together."""

    def __post_init__(self) -> None:
        check_name(self.name)
        check_priority(self.priority)
        for value, most, what in (
            (self.replicas, MAX_REPLICAS, "replicas"),
            (self.parallel, MAX_PARALLEL, "parallel answers"),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"a service has 1 to {most:,} {what}, not {value:,}")
        if not self.each:
            raise ValueError("a replica asks for something: each is empty")
        if not 0 <= self.least <= self.replicas <= self.most <= MAX_REPLICAS:
            raise ValueError(
                f"replicas need 0 <= min <= replicas <= max <= {MAX_REPLICAS:,}, got "
                f"min={self.least} replicas={self.replicas} max={self.most}"
            )
        if not MIN_IDLE_S <= self.idle_s <= MAX_IDLE_S:
            raise ValueError(f"idle_s is between 1 and {MAX_IDLE_S:.0f} seconds")
        if not MIN_TOKENS <= self.context_tokens <= MAX_TOKENS:
            raise ValueError(f"context is between {MIN_TOKENS} and {MAX_TOKENS:,} tokens")
        if len(self.schedules) > MAX_SCHEDULES or self.highest > MAX_REPLICAS:
            raise ValueError(f"at most {MAX_SCHEDULES} schedules of {MAX_REPLICAS:,} replicas each")
        self._check_task()
        self._check_others()

    def _check_others(self) -> None:
        for name in self.fallbacks:
            check_name(name)
        if self.name in self.fallbacks or len(set(self.fallbacks)) < len(self.fallbacks):
            raise ValueError("the fallbacks of a service are other ones, each once")
        if len(self.fallbacks) > MAX_FALLBACKS:
            raise ValueError(f"a service has at most {MAX_FALLBACKS} fallbacks")
        for name, wait_s in (("hedge_s", self.hedge_s), ("first_token_s", self.first_token_s)):
            if wait_s is not None and not MIN_WAIT_S <= wait_s <= MAX_WAIT_S:
                raise ValueError(f"{name} is between {MIN_WAIT_S} and {MAX_WAIT_S:.0f} seconds")

    def _check_task(self) -> None:
        if self.task != Task.GENERATE and (self.probe or self.adapters):
            raise ValueError("only a service that generates text has a probe or adapters")
        names = [self.name, *(adapter.name for adapter in self.adapters)]
        if len(set(names)) < len(names):
            raise ValueError("a service and its adapters need a name each")
        if len(self.adapters) > MAX_ADAPTERS:
            raise ValueError(f"a service has at most {MAX_ADAPTERS} adapters")

    @property
    def least(self) -> int:
        """Fewest replicas."""
        return self.replicas if self.min_replicas is None else self.min_replicas

    @property
    def most(self) -> int:
        """Most replicas."""
        return self.replicas if self.max_replicas is None else self.max_replicas

    @property
    def highest(self) -> int:
        """Most replicas at any time."""
        return max(self.most, *(one.max_replicas for one in self.schedules), 0)

    def bounds_at(self, now: float) -> tuple[int, int]:
        """Fewest and most replicas at an instant (UTC epoch seconds): the highest that hold."""
        held = [one for one in self.schedules if one.holds_at(now)]
        bounds = [(one.min_replicas, one.max_replicas) for one in held] or [(self.least, self.most)]
        return max(least for least, _ in bounds), max(most for _, most in bounds)

    @property
    def range(self) -> str:
        """How many replicas it has, as users write it."""
        return str(self.least) if self.least == self.most else f"{self.least}..{self.most}"

    def runs_as(self, other: "ServiceSpec") -> bool:
        """Whether a replica of this is one of the other too: at most their numbers differ."""
        return self.as_many_as(other) == other

    def as_many_as(self, other: "ServiceSpec") -> "ServiceSpec":
        """This, with what of the other is nothing to its replicas: how many, and what is around."""
        return replace(
            self,
            replicas=other.replicas,
            min_replicas=other.min_replicas,
            max_replicas=other.max_replicas,
            schedules=other.schedules,
            idle_s=other.idle_s,
            prefer=other.prefer,
            fallbacks=other.fallbacks,
            hedge_s=other.hedge_s,
            first_token_s=other.first_token_s,
            calls=other.calls,
        )

    @property
    def gang(self) -> GangSpec:
        """The replicas that it starts with, as a gang: what admission checks."""
        return GangSpec(min=self.replicas, want=self.replicas, each=self.each)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A deployed service."""

    id: WorkloadId
    spec: ServiceSpec
    state: State = State.QUEUED
    status: Status = INITIAL_STATUS
    owner: str = ""
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    updated_at: float | None = None
    """When it was last asked for something that its replicas have to be replaced for."""
    revision: int = 0
    """Counts the changes of its specification."""
    unreadable: str = ""
    """Why what the store has of the service cannot be read, as in a Job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One replica of a service: the workload that the scheduler places."""

    id: WorkloadId
    service: WorkloadId
    number: int
    """Counts the replicas that the service has had, from 0."""
    spec: ServiceSpec
    """What the service asked for when the replica was made."""
    state: State = State.QUEUED
    status: Status = INITIAL_STATUS
    owner: str = ""
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    unreadable: str = ""
    """As in a Service."""

    @property
    def gang(self) -> GangSpec:
        """The one worker that it is."""
        return GangSpec(each=self.spec.each)

    @property
    def is_ready(self) -> bool:
        """Whether it answers requests."""
        return any(view.state == READY for view in self.status.ranks)

    @property
    def ready_since(self) -> float | None:
        """Since when it answers requests; None: it does not."""
        return next((view.since for view in self.status.ranks if view.state == READY), None)

    @property
    def views(self) -> tuple[RankView, ...]:
        """Its process as one of its service's."""
        taken = self.status.memory_bytes
        return tuple(
            replace(view, rank=self.number, memory_bytes=taken) for view in self.status.ranks
        )


def replica_id(service: WorkloadId, number: int) -> WorkloadId:
    """Id of a service's replica, as of a job of an array."""
    return WorkloadId(f"{service}_{number}")


def unreadable_service_spec(name: str, project: str) -> ServiceSpec:
    """What stands for a specification that cannot be read."""
    return ServiceSpec(name=safe_name(name), project=project, model="unreadable")
