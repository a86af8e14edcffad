"""Secrets of projects: sealed on the way in, opened only for processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from karez.core.errors import BadRequest, NotFound
from karez.core.identity import Principal, Role
from karez.core.jobs import problem_with_variable
from karez.core.names import check_label
from karez.core.stores.access import AccessStore
from karez.server.services.permissions import Permissions
from karez.vault.keys import Pepper

MAX_NAME = 120
MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretService:
    """Secrets by project and name."""

    store: AccessStore
    permissions: Permissions
    pepper: Pepper

    def names(self, who: Principal, project: str) -> list[str]:
        """The names of a project's secrets, in order."""
        project = self.permissions.project_of(who, project)
        self.permissions.require(who, project, Role.MEMBER)
        return sorted(self.store.secrets(project))

    def put(self, who: Principal, project: str, name: str, text: str) -> None:
        """Seal and store a secret."""
        project = self.permissions.project_of(who, project)
        self.permissions.require(who, project, Role.MEMBER)
        if problem := problem_with_variable(name):
            raise BadRequest(problem=problem, fix="A job finds a secret in a variable of its name.")
        check_label(name, limit=MAX_NAME)
        if len(text.encode()) > MAX_BYTES or "\0" in text:
            raise BadRequest(
                problem=f"a secret has up to {MAX_BYTES:,} bytes, and no NUL character",
                fix="Give what is longer as an input of the job.",
            )
        self.store.put_secret(project, name, self.pepper.seal(f"{project}/{name}", text))

    def drop(self, who: Principal, project: str, name: str) -> None:
        """Delete a secret. Raises NotFound."""
        project = self.permissions.project_of(who, project)
        self.permissions.require(who, project, Role.MEMBER)
        if not self.store.drop_secret(project, name):
            raise NotFound(noun="secret", name=name)

    def require(self, project: str, names: Sequence[str]) -> None:
        """Check that a project has these secrets. Raises NotFound."""
        missing = sorted(set(names) - set(self.store.secrets(project)))
        if missing:
            raise NotFound(noun="secret", name=missing[0])

    def open(self, project: str, names: Sequence[str]) -> Mapping[str, str]:
        """Open secrets for a process: name -> text; absent ones are left out."""
        sealed = self.store.secrets(project)
        return {
            name: self.pepper.open(f"{project}/{name}", sealed[name])
            for name in names
            if name in sealed
        }
