"""Projects and keys: make, list, limit and revoke."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from karez.core.errors import AlreadyExists, BadRequest, NotFound, NotSignedIn
from karez.core.identity import EVERYWHERE, JOIN_S, Key, KeySpec, Principal, Project, Role
from karez.core.names import NAME_LIMIT, as_label
from karez.core.ports import Clock
from karez.core.stores.access import AccessStore
from karez.server.services.permissions import Permissions
from karez.vault.keys import Pepper, full_key, make_key

CLOUD_ROLES = (Role.NODE, Role.GATEWAY, Role.MONITOR, Role.JOIN)
"""Roles that only an admin of all projects may hand out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessService:
    """Projects with their quotas, and the keys of their users."""

    store: AccessStore
    permissions: Permissions
    pepper: Pepper
    clock: Clock
    wake: Callable[[], None]
    """Runs the scheduler at once."""

    def first_start(self) -> str:
        """Make the default project and the first admin key; empty if an admin key exists."""
        with contextlib.suppress(AlreadyExists):  # not the first start
            self.store.add_project(Project(name="default"))
        return "" if self._admins() else self.reset_admin()

    def _admins(self) -> Sequence[Key]:
        """The valid keys of admins of all projects."""
        return [
            key
            for key in self.store.keys()
            if key.is_valid(self.clock.now())
            and key.role == Role.ADMIN
            and key.project == EVERYWHERE
        ]

    def reset_admin(self) -> str:
        """Make a key of an admin of all projects; returns its text. Others stay valid."""
        return self.new_key(KeySpec(name="admin", project=EVERYWHERE, role=Role.ADMIN))[1]

    def make_key(self, who: Principal, spec: KeySpec) -> tuple[Key, str]:
        """Make a key if the caller may; returns the key and its text, which is shown only once."""
        if spec.project == EVERYWHERE or spec.role in CLOUD_ROLES:
            self.permissions.require_everywhere(who)
        else:
            self.permissions.require(who, spec.project, Role.ADMIN)
        return self.new_key(spec)

    def new_key(self, spec: KeySpec) -> tuple[Key, str]:
        """Make a key without checking permissions; returns the key and its text."""
        ident, secret = make_key()
        lasts_s = spec.expires_in_s or (JOIN_S if spec.role == Role.JOIN else None)
        key = Key(
            id=ident,
            name=spec.name,
            project=spec.project,
            role=spec.role,
            digest=self.pepper.digest(secret),
            created_at=self.clock.now(),
            expires_at=None if lasts_s is None else self.clock.now() + lasts_s,
            calls=spec.calls,
        )
        self.store.add_key(key)
        return key, full_key(ident, secret)

    def exchange(self, who: Principal, node: str) -> str:
        """Give a host a key of its own for its token to join, which is good for that once.

        Raises:
            NotSignedIn: Another host has used it.
        """
        name = as_label(f"node {node}", limit=NAME_LIMIT)
        spec = KeySpec(name=name, project=EVERYWHERE, role=Role.NODE)
        if not self.store.revoke_key(who.key_id, at=self.clock.now()):
            raise NotSignedIn
        return self.new_key(spec)[1]

    def keys(self, who: Principal) -> Sequence[Key]:
        """Keys of the projects that this admin may see."""
        return [key for key in self.store.keys() if who.sees(key.project)]

    def revoke(self, who: Principal, ident: str) -> None:
        """Refuse a key from now on. Raises NotFound; BadRequest for the last admin's key."""
        key = self.store.key(ident)
        if key is None or not who.sees(key.project):
            raise NotFound(noun="key", name=ident)
        if [one.id for one in self._admins()] == [ident]:
            raise BadRequest(
                problem=f"{ident} is the last key of an admin of all projects",
                fix="Make another first: `karez keys create NAME --project '*' --role admin`.",
            )
        self.store.revoke_key(ident, at=self.clock.now())

    def rotate(self, who: Principal, ident: str, grace_s: float) -> tuple[Key, str]:
        """Replace a key by another of the same rights and lifetime: (the new key, its text).

        Raises NotFound; NotAllowed; BadRequest for a key that is not valid.
        """
        old, now = self.store.key(ident), self.clock.now()
        if old is None or not who.sees(old.project):
            raise NotFound(noun="key", name=ident)
        if old.made_for:
            raise BadRequest(
                problem=f"{ident} is a key of {old.made_for}, which alone knows it",
                fix=f"Rotate the key that asked for it: {old.parent}.",
            )
        if not old.is_valid(now):
            raise BadRequest(
                problem=f"{ident} is revoked or expired",
                fix="Make another with `karez keys create`.",
            )
        lasts_s = None if old.expires_at is None else old.expires_at - old.created_at
        spec = KeySpec(
            name=old.name,
            project=old.project,
            role=old.role,
            expires_in_s=lasts_s,
            calls=old.calls,
        )
        made = self.make_key(who, spec)
        self.store.hand_over_keys(ident, made[0].id)
        if grace_s:
            self.store.expire_key(ident, at=now + grace_s)
        else:
            self.store.revoke_key(ident, at=now)
        return made

    def projects(self, who: Principal) -> Sequence[Project]:
        """Projects that a key may see."""
        return [project for project in self.store.projects() if who.sees(project.name)]

    def add_project(self, project: Project) -> Project:
        """Make a project. Raises AlreadyExists."""
        self.store.add_project(project)
        return project

    def set_quota(self, project: Project) -> Project:
        """Set a project's quota. Raises NotFound."""
        if not self.store.set_quota(project):
            raise NotFound(noun="project", name=project.name)
        self.wake()
        return project
