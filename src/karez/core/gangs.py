"""Gangs: workers that are placed together, and their roles."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from karez.core.names import check_name
from karez.core.node_affinity import ANYWHERE, NodeAffinity
from karez.core.resource_requests import ResourceRequest
from karez.core.validation import FORBID

MAX_WORKERS = 100_000
"""Workers of one gang: the design goes to 100,000 devices."""
SPARE = "spare"
"""The role of the grants that a gang holds in reserve."""
MAX_ROLES = 16
"""Roles of one gang; each has requests of its own."""
MAX_SPARES = 1000


class Topology(StrEnum):
    """Where a gang's workers should be placed in relation to each other."""

    ANY = "any"
    PREFER_SUPERNODE = "prefer:supernode"
    REQUIRE_SUPERNODE = "require:supernode"
    SPREAD = "spread"


@dataclass(frozen=True, slots=True, kw_only=True)
class GangRole:
    """Additional workers of a gang with requests of their own: loaders, or memory on other nodes.

    They start and end with the gang. A role that asks for memory or storage alone is held for
    the gang and runs nothing.
    """

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    workers: int = 1
    each: tuple[ResourceRequest, ...] = (ResourceRequest(),)
    command: tuple[str, ...] = ()
    """Command of the role's workers; empty: the gang's own command."""
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

    The gang starts with up to `want` workers. Where `max` is given, it grows to `max` while no
    other workload needs the devices. It gives them back, down to `min`, to workloads that are
    ahead of it in the queue.
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
    """Workers' grants held in reserve, on other nodes where there are any: as many as fit."""

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
        """Greatest number of workers that the gang may grow to."""
        return self.want if self.max is None else self.max


ONE_WORKER = GangSpec()
"""A gang of one worker on one CPU: the default of a job."""
