"""API requests about projects, keys, secrets, usage and the audit log."""

from karez.client.calls import Call
from karez.core.api_models import (
    KeyView,
    NewKey,
)
from karez.core.codec import to_json
from karez.core.identity import KeyRotation, KeySpec, Principal, Project
from karez.core.usage import AuditRow, UsageRow


def whoami() -> Call[Principal]:
    """Get the user and role that this client's key belongs to."""
    return Call(answer=Principal, method="GET", path="/whoami")


def projects() -> Call[list[Project]]:
    """List projects by name."""
    return Call(answer=list[Project], method="GET", path="/projects")


def add_project(project: Project) -> Call[Project]:
    """Create a project."""
    return Call(answer=Project, method="POST", path="/projects", body=to_json(project))


def set_quota(project: Project) -> Call[Project]:
    """Set a project's quota."""
    path = f"/projects/{project.name}"
    return Call(answer=Project, method="PUT", path=path, body=to_json(project), once="same")


def keys() -> Call[list[KeyView]]:
    """List API keys, newest first."""
    return Call(answer=list[KeyView], method="GET", path="/keys")


def create_key(spec: KeySpec) -> Call[NewKey]:
    """Create an API key."""
    return Call(answer=NewKey, method="POST", path="/keys", body=to_json(spec))


def rotate_key(ident: str, rotation: KeyRotation) -> Call[NewKey]:
    """Replace an API key by another of the same name, project and role."""
    return Call(answer=NewKey, method="POST", path=f"/keys/{ident}/rotate", body=to_json(rotation))


def revoke_key(ident: str) -> Call[None]:
    """Revoke an API key."""
    return Call(answer=None, method="DELETE", path=f"/keys/{ident}")


def secrets(project: str) -> Call[list[str]]:
    """List the names of a project's secrets."""
    return Call(answer=list[str], method="GET", path=f"/projects/{project}/secrets")


def put_secret(project: str, name: str, text: str) -> Call[None]:
    """Store a secret of a project."""
    path = f"/projects/{project}/secrets/{name}"
    return Call(answer=None, method="PUT", path=path, body={"text": text}, once="same")


def usage() -> Call[list[UsageRow]]:
    """List tokens per service and device-seconds per workload."""
    return Call(answer=list[UsageRow], method="GET", path="/usage")


def audit(limit: int = 100) -> Call[list[AuditRow]]:
    """List who changed what, newest first."""
    return Call(answer=list[AuditRow], method="GET", path="/audit", params={"limit": limit})
