"""Services: models behind the gateway, and how users ask for them."""

from dataclasses import dataclass
from typing import Any, ClassVar

from karez.core.gangs import GangSpec
from karez.core.names import check_name
from karez.core.resource_requests import ResourceRequest
from karez.core.units import MILLI
from karez.core.validation import FORBID
from karez.core.workloads import INITIAL_STATUS, State, Status, WorkloadId


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
    priority: int = 10

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.replicas < 1 or self.context_tokens < 64 or self.parallel < 1:
            raise ValueError("a service needs replicas >= 1, context >= 64 tokens, parallel >= 1")

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
