"""Services: models behind the gateway, and how users ask for them."""

from dataclasses import dataclass
from typing import Any, ClassVar

from karez.core.gangs import GangSpec
from karez.core.names import check_name, safe_name
from karez.core.priorities import SERVICE_PRIORITY, check_priority
from karez.core.resource_requests import ResourceRequest
from karez.core.units import MILLI
from karez.core.validation import FORBID
from karez.core.workloads import INITIAL_STATUS, State, Status, WorkloadId

MAX_REPLICAS = 1000
MAX_PARALLEL = 4096
MIN_TOKENS, MAX_TOKENS = 64, 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """A service as a user asks for it: a model, its engine, its replicas."""

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
    priority: int = SERVICE_PRIORITY

    def __post_init__(self) -> None:
        check_name(self.name)
        check_priority(self.priority)
        for value, most, what in (
            (self.replicas, MAX_REPLICAS, "replicas"),
            (self.parallel, MAX_PARALLEL, "parallel answers"),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"a service has 1 to {most:,} {what}, not {value:,}")
        if not MIN_TOKENS <= self.context_tokens <= MAX_TOKENS:
            raise ValueError(f"context is between {MIN_TOKENS} and {MAX_TOKENS:,} tokens")

    @property
    def gang(self) -> GangSpec:
        """The replicas as a gang: what admission checks and the scheduler places."""
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
    unreadable: str = ""
    """Why what the store has of the service cannot be read, as in a Job."""


def unreadable_service_spec(name: str, project: str) -> ServiceSpec:
    """What stands for a specification that cannot be read."""
    return ServiceSpec(name=safe_name(name), project=project, model="unreadable")
