"""Who may do what: roles, keys, projects."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from karez.core.devices import DeviceKind
from karez.core.names import check_name
from karez.core.validation import FORBID

MAX_WEIGHT = 1_000_000
EVERYWHERE = "*"
"""The project of a key that is good for all projects."""


class Role(StrEnum):
    """What a key may do. Each people's role includes the ones before it."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"
    NODE = "node"
    GATEWAY = "gateway"
    MONITOR = "monitor"
    """It may report faults, and nothing else."""


_RANK = {Role.VIEWER: 1, Role.MEMBER: 2, Role.ADMIN: 3}


def includes(held: Role, needed: Role) -> bool:
    """Whether a key with role `held` may do what asks for `needed`."""
    if needed == Role.MONITOR:
        return held in (Role.MONITOR, Role.ADMIN)
    if held not in _RANK or needed not in _RANK:
        return held == needed
    return _RANK[held] >= _RANK[needed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who makes a request."""

    key_id: str
    name: str
    project: str
    role: Role

    def sees(self, project: str) -> bool:
        """Whether this key is good for a project."""
        return self.project in (EVERYWHERE, project)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpec:
    """A key about to be made."""

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    project: str = "default"
    role: Role = Role.MEMBER


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An API key as the store knows it: never the secret."""

    id: str
    name: str
    project: str
    role: Role
    digest: str
    created_at: float
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A team with its quota; a kind not named is unlimited.

    Amounts are thousandths of devices, and bytes of memory and storage. Projects of a cohort lend
    each other what of their guarantees they do not use.
    """

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    quota: Mapping[DeviceKind, int] = field(default_factory=dict)
    """The cap: it never holds more."""
    cohort: str = ""
    guarantee: Mapping[DeviceKind, int] = field(default_factory=dict)
    """What it may always take, in its cohort."""
    lend: Mapping[DeviceKind, int] = field(default_factory=dict)
    """The most of its guarantee that others may borrow; a kind not named is lent whole."""
    weight: int = 1
    """Its part of what projects share: one of weight 2 may use twice as much as one of weight 1."""

    def __post_init__(self) -> None:
        check_name(self.name)
        for limits in (self.quota, self.guarantee, self.lend):
            if any(amount < 0 for amount in limits.values()):
                raise ValueError(f"a quota cannot be negative: {dict(limits)}")
        if (self.guarantee or self.lend) and not self.cohort:
            raise ValueError("a guarantee and a lending limit need a cohort")
        if not 1 <= self.weight <= MAX_WEIGHT:
            raise ValueError(f"a weight is a whole number from 1 to {MAX_WEIGHT}")
        for kind, amount in self.guarantee.items():
            if amount > self.quota.get(kind, amount):
                raise ValueError(f"the guarantee of {kind} is larger than the cap")
