"""Who may do what: keys are checked, and roles in projects are required."""

from dataclasses import dataclass

from karez.core.errors import NotAllowed, NotFound
from karez.core.identity import DEFAULT_PROJECT, EVERYWHERE, Principal, Project, Role, includes
from karez.core.ports import Clock
from karez.core.stores.access import AccessStore
from karez.vault.keys import Pepper, split_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """Checks keys, roles and projects against the access store."""

    store: AccessStore
    pepper: Pepper
    clock: Clock

    def principal(self, text: str) -> Principal | None:
        """The principal that a key's text belongs to; None if the key is unknown or revoked."""
        parts = split_key(text)
        key = self.store.key(parts[0]) if parts else None
        if key is None or parts is None or not key.is_valid(self.clock.now()):
            return None
        if key.made_for:
            return None  # it calls models, and nothing else
        if not self.pepper.matches(parts[1], key.digest):
            return None
        return Principal(key_id=key.id, name=key.name, project=key.project, role=key.role)

    def project_of(self, who: Principal, project: str) -> str:
        """The project that a request means: to a key of one project, `default` is that one."""
        is_own = project == DEFAULT_PROJECT and not who.sees(DEFAULT_PROJECT)
        return who.project if is_own else project

    def require(self, who: Principal, project: str, role: Role) -> Project:
        """Check that a key has a role in a project; returns the project.

        Raises:
            NotAllowed: The key does not have this role there.
            NotFound: There is no such project.
        """
        if not who.sees(project) or not includes(who.role, role):
            raise NotAllowed(needed=role, held=who.role, project=project)
        found = self.store.project(project)
        if found is None:
            raise NotFound(noun="project", name=project)
        return found

    def require_everywhere(self, who: Principal) -> None:
        """Check that a key is an admin's for all projects. Raises NotAllowed."""
        if not who.is_admin_everywhere:
            raise NotAllowed(needed=Role.ADMIN, held=who.role, project=EVERYWHERE)


def visible_projects(who: Principal) -> tuple[str, ...] | None:
    """The projects that a key may see; None means all."""
    return None if who.project == EVERYWHERE else (who.project,)
