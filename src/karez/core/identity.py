"""Who may do what: roles, keys, projects."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from karez.core.resources import FORBID, DeviceKind
from karez.core.workloads import check_name

EVERYWHERE = "*"
"""The project of a key that is good for all projects."""


class Role(StrEnum):
    """What a key may do. Each people's role includes the ones before it."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"
    NODE = "node"
    GATEWAY = "gateway"


_RANK = {Role.VIEWER: 1, Role.MEMBER: 2, Role.ADMIN: 3}


def includes(held: Role, needed: Role) -> bool:
    """Whether a key with role `held` may do what asks for `needed`."""
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
    """A team with its quota: thousandths of devices per kind; a kind not named is unlimited.

    Projects of a cohort lend each other what of their guarantees they do not use.
    """

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    quota_milli: Mapping[DeviceKind, int] = field(default_factory=dict)
    """The cap: it never holds more."""
    cohort: str = ""
    guarantee_milli: Mapping[DeviceKind, int] = field(default_factory=dict)
    """What it may always take, in its cohort."""
    lend_milli: Mapping[DeviceKind, int] = field(default_factory=dict)
    """The most of its guarantee that others may borrow; a kind not named is lent whole."""

    def __post_init__(self) -> None:
        check_name(self.name)
        for limits in (self.quota_milli, self.guarantee_milli, self.lend_milli):
            if any(milli < 0 for milli in limits.values()):
                raise ValueError(f"a quota cannot be negative: {dict(limits)}")
        if (self.guarantee_milli or self.lend_milli) and not self.cohort:
            raise ValueError("a guarantee and a lending limit need a cohort")
        for kind, milli in self.guarantee_milli.items():
            if milli > self.quota_milli.get(kind, milli):
                raise ValueError(f"the guarantee of {kind} is larger than the cap")
