"""Access control: roles, keys, projects."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from karez.core.call_limits import NO_CALL_LIMITS, NO_MINUTE_LIMITS, CallLimits, MinuteLimits
from karez.core.codec import MAX_INTEGER
from karez.core.devices import MAX_BYTES, DeviceKind
from karez.core.guardrails import Guardrail, check_guardrails
from karez.core.names import NAME_LIMIT, check_label, check_name
from karez.core.priorities import check_priority
from karez.core.validation import FORBID

MAX_KEY_S = 10 * 365.25 * 86_400
MAX_GRACE_S = 30 * 86_400.0
JOIN_S = 3600.0
"""How long a token to join is valid by default."""
MAX_WEIGHT = 1_000_000
DEFAULT_PROJECT = "default"
"""Project of what names none. To a key of another project it means that one."""
EVERYWHERE = "*"
"""Project of a key that is valid for all projects."""


class Role(StrEnum):
    """Permissions of a key. MEMBER includes VIEWER, and ADMIN includes both."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"
    NODE = "node"
    GATEWAY = "gateway"
    MONITOR = "monitor"
    """A monitor may report faults, and nothing else."""
    JOIN = "join"
    """A host with it may join once, and gets a key of role NODE of its own."""


_RANK = {Role.VIEWER: 1, Role.MEMBER: 2, Role.ADMIN: 3}


def includes(held: Role, needed: Role) -> bool:
    """Whether role `held` includes the permissions of role `needed`."""
    if needed == Role.MONITOR:
        return held in (Role.MONITOR, Role.ADMIN)
    if held not in _RANK or needed not in _RANK:
        return held == needed
    return _RANK[held] >= _RANK[needed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The key that a request was made with."""

    key_id: str
    name: str
    project: str
    role: Role

    @property
    def is_admin_everywhere(self) -> bool:
        """Whether this key is an admin's for all projects."""
        return self.project == EVERYWHERE and self.role == Role.ADMIN

    def sees(self, project: str) -> bool:
        """Whether this key is valid for a project."""
        return self.project in (EVERYWHERE, project)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpec:
    """A key to be created."""

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    project: str = "default"
    role: Role = Role.MEMBER

    expires_in_s: float | None = None
    """How long the key is valid; None: for good, but of role JOIN for an hour."""
    calls: CallLimits = NO_CALL_LIMITS

    def __post_init__(self) -> None:
        check_label(self.name, limit=NAME_LIMIT)
        if self.expires_in_s is not None and not 1.0 <= self.expires_in_s <= MAX_KEY_S:
            raise ValueError("a key is valid for a second to ten years")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotation:
    """How a key is replaced by another one of the same name, project and role."""

    __pydantic_config__: ClassVar[Any] = FORBID

    grace_s: float = 0.0
    """How long the old key is valid besides."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.grace_s <= MAX_GRACE_S:
            raise ValueError("an old key is valid for 30 days at most")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An API key as stored: its digest, never the secret."""

    id: str
    name: str
    project: str
    role: Role
    digest: str
    created_at: float
    revoked_at: float | None = None
    expires_at: float | None = None
    calls: CallLimits = NO_CALL_LIMITS
    made_for: str = ""
    """Job whose processes call models with it, and that it is good for alone; empty: no job."""
    parent: str = ""
    """Id of the key that asked for the job: its limits hold for this one too, and its end."""

    def is_valid(self, now: float) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectLimits:
    """What the members of a project may take of what all projects share."""

    __pydantic_config__: ClassVar[Any] = FORBID

    priority: int = 0
    """Highest priority of its jobs, and of its services above their own `SERVICE_PRIORITY`; an
    admin of all projects may go beyond."""
    queued: int = 10_000
    """Jobs that wait at once."""
    replicas: int = 256
    """Replicas of all its services."""
    storage_bytes: int | None = None
    """Bytes of its uploads and artifacts, each content once; None: any."""
    spend_nano: int | None = None
    """Cost of its models' calls and its devices in a calendar month (UTC), in billionths; None:
    any. At the limit calls are refused, nothing starts, and jobs that lose nothing by it yield."""
    calls: MinuteLimits = NO_MINUTE_LIMITS
    """Calls of its models by all keys together."""

    def __post_init__(self) -> None:
        check_priority(self.priority)
        amounts = (self.queued, self.replicas, self.storage_bytes or 0, self.spend_nano or 0)
        if min(amounts) < 0 or max(amounts) > MAX_INTEGER:
            raise ValueError(f"a limit is between 0 and {MAX_INTEGER}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A team with its quota; a kind not named is unlimited.

    Amounts are thousandths of devices, and bytes of memory and storage. Projects of a cohort lend
    each other the unused part of their guarantees.
    """

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    quota: Mapping[DeviceKind, int] = field(default_factory=dict)
    """Caps: the project never holds more."""
    cohort: str = ""
    guarantee: Mapping[DeviceKind, int] = field(default_factory=dict)
    """Amounts that the project may always take in its cohort."""
    lend: Mapping[DeviceKind, int] = field(default_factory=dict)
    """Greatest part of the guarantee that others may borrow; a kind not named is lent whole."""
    weight: int = 1
    """Weight in fair sharing: a project of weight 2 may use twice as much as one of weight 1."""
    limits: ProjectLimits = ProjectLimits()
    guardrails: tuple[Guardrail, ...] = ()
    """What is looked for in the calls of its models."""

    def __post_init__(self) -> None:
        check_name(self.name)
        check_guardrails(self.guardrails)
        for limits in (self.quota, self.guarantee, self.lend):
            if not all(0 <= amount <= MAX_BYTES for amount in limits.values()):
                raise ValueError(f"a quota is between 0 and {MAX_BYTES}: {dict(limits)}")
        if (self.guarantee or self.lend) and not self.cohort:
            raise ValueError("a guarantee and a lending limit need a cohort")
        if not 1 <= self.weight <= MAX_WEIGHT:
            raise ValueError(f"a weight is a whole number from 1 to {MAX_WEIGHT}")
        for kind, amount in self.guarantee.items():
            if amount > self.quota.get(kind, amount):
                raise ValueError(f"the guarantee of {kind} is larger than the cap")
