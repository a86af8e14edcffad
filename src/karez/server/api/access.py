"""Projects, keys and secrets over HTTP."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fastapi import APIRouter

from karez.core.api_models import KeyView, NewKey
from karez.core.identity import KeyRotation, KeySpec, Principal, Project, Role
from karez.core.validation import FORBID
from karez.server.api.authorization import CloudDep, Who, allow

router = APIRouter(tags=["access"])


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretText:
    """A secret on its way in."""

    __pydantic_config__: ClassVar[Any] = FORBID

    text: str


@router.get("/whoami", **allow(Role.VIEWER))
def whoami(who: Who) -> Principal:
    """The principal of the key that was sent."""
    return who


@router.get("/projects", **allow(Role.VIEWER))
def list_projects(cloud: CloudDep, who: Who) -> Sequence[Project]:
    """The projects you may see."""
    return cloud.access.projects(who)


@router.post("/projects", status_code=201, **allow(Role.ADMIN))
def create_project(project: Project, cloud: CloudDep, who: Who) -> Project:
    """Make a project."""
    cloud.permissions.require_everywhere(who)
    if not cloud.settings.shared_user:
        cloud.pool.require_isolation()
    return cloud.access.add_project(project)


@router.put("/projects/{name}", **allow(Role.ADMIN))
def set_quota(name: str, project: Project, cloud: CloudDep, who: Who) -> Project:
    """Set a project's quota."""
    cloud.permissions.require_everywhere(who)
    if name != project.name:
        raise ValueError(f"the path says {name}, the body {project.name}")
    return cloud.access.set_quota(project)


@router.get("/keys", **allow(Role.ADMIN))
def list_keys(cloud: CloudDep, who: Who) -> Sequence[KeyView]:
    """All keys, without their secrets."""
    return [
        KeyView(
            id=key.id,
            name=key.name,
            project=key.project,
            role=key.role,
            created_at=key.created_at,
            revoked_at=key.revoked_at,
            expires_at=key.expires_at,
            calls=key.calls,
        )
        for key in cloud.access.keys(who)
    ]


@router.post("/keys", status_code=201, **allow(Role.ADMIN))
def create_key(spec: KeySpec, cloud: CloudDep, who: Who) -> NewKey:
    """Make a key; its text is shown this once."""
    key, text = cloud.access.make_key(who, spec)
    return NewKey(id=key.id, key=text, name=key.name, project=key.project, role=key.role)


@router.post("/keys/{key}/rotate", status_code=201, **allow(Role.ADMIN))
def rotate_key(key: str, rotation: KeyRotation, cloud: CloudDep, who: Who) -> NewKey:
    """Replace a key by another of the same name, project and role; its text is shown this once."""
    made, text = cloud.access.rotate(who, key, rotation.grace_s)
    return NewKey(id=made.id, key=text, name=made.name, project=made.project, role=made.role)


@router.delete("/keys/{key}", status_code=204, **allow(Role.ADMIN))
def revoke_key(key: str, cloud: CloudDep, who: Who) -> None:
    """Refuse a key from now on."""
    cloud.access.revoke(who, key)


@router.get("/projects/{project}/secrets", **allow(Role.MEMBER))
def list_secrets(project: str, cloud: CloudDep, who: Who) -> list[str]:
    """The names of a project's secrets, never their texts."""
    return cloud.secrets.names(who, project)


@router.put("/projects/{project}/secrets/{name}", status_code=204, **allow(Role.MEMBER))
def put_secret(project: str, name: str, secret: SecretText, cloud: CloudDep, who: Who) -> None:
    """Keep a secret, sealed; jobs that name it find it in their environment."""
    cloud.secrets.put(who, project, name, secret.text)


@router.delete("/projects/{project}/secrets/{name}", status_code=204, **allow(Role.MEMBER))
def drop_secret(project: str, name: str, cloud: CloudDep, who: Who) -> None:
    """Forget a secret."""
    cloud.secrets.drop(who, project, name)
