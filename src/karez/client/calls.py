"""Every call of the API as a value: the words that the sync and the async client share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from karez.core.api_models import (
    JoinConfig,
    KeyView,
    LogPiece,
    NewKey,
    PublicKey,
    ReceiptView,
    Summary,
)
from karez.core.artifacts import Artifact, ArtifactKind, ArtifactSpec, FileEntry
from karez.core.chaos import FaultSpec, InjectedFault
from karez.core.codec import to_json
from karez.core.explanations import DefragResult, Explanation, WhatIf, WhatIfResult
from karez.core.goodput import Goodput
from karez.core.identity import KeySpec, Principal, Project
from karez.core.jobs import Job, JobSpec
from karez.core.nodes import MaintenanceWindow, Node, NodeOverride
from karez.core.recovery import FaultReport, Transition
from karez.core.services import Service, ServiceSpec
from karez.core.usage import AuditRow, MetricRow, UsageRow
from karez.core.workloads import Allocation, State

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request and the type of its answer."""

    answer: Any
    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    once: str = ""
    """Idempotency key: sending the call again is harmless."""
    file: Path | None = None
    """A file whose bytes are the body."""


def summary() -> Call[Summary]:
    """The cloud in one look."""
    return Call(answer=Summary, method="GET", path="/status")


def whoami() -> Call[Principal]:
    """Whose key this is."""
    return Call(answer=Principal, method="GET", path="/whoami")


def submit(spec: JobSpec, once: str) -> Call[Job]:
    """Queue a job."""
    return Call(answer=Job, method="POST", path="/jobs", body=to_json(spec), once=once)


def jobs(states: Sequence[State] = (), limit: int = 100) -> Call[list[Job]]:
    """Jobs, newest first."""
    params = {"state": [str(state) for state in states], "limit": limit}
    return Call(answer=list[Job], method="GET", path="/jobs", params=params)


def job(ident: str) -> Call[Job]:
    """One job."""
    return Call(answer=Job, method="GET", path=f"/jobs/{ident}")


def cancel(ident: str) -> Call[Job]:
    """Ask for a job's end."""
    return Call(answer=Job, method="POST", path=f"/jobs/{ident}/cancel", once="same")


def metrics(ident: str, after: int = -1) -> Call[list[MetricRow]]:
    """Loss per step and rank."""
    params = {"after": after}
    return Call(answer=list[MetricRow], method="GET", path=f"/jobs/{ident}/metrics", params=params)


def receipts(ident: str) -> Call[list[ReceiptView]]:
    """A job's recoveries."""
    return Call(answer=list[ReceiptView], method="GET", path=f"/jobs/{ident}/receipts")


def goodput(ident: str) -> Call[Goodput]:
    """How much of a job's time went into steps that count."""
    return Call(answer=Goodput, method="GET", path=f"/jobs/{ident}/goodput")


def transitions(ident: str) -> Call[list[Transition]]:
    """The log of a job's recovery protocol."""
    return Call(answer=list[Transition], method="GET", path=f"/jobs/{ident}/transitions")


def inject_faults(ident: str, specs: Sequence[FaultSpec]) -> Call[list[InjectedFault]]:
    """Break a job on purpose."""
    body = [to_json(spec) for spec in specs]
    return Call(answer=list[InjectedFault], method="POST", path=f"/jobs/{ident}/faults", body=body)


def report_fault(report: FaultReport) -> Call[FaultReport]:
    """Say what is wrong with a node."""
    return Call(answer=FaultReport, method="POST", path="/faults", body=to_json(report))


def faults(since: float = 0.0, node: str = "") -> Call[list[FaultReport]]:
    """What was reported."""
    params = {"since": since, "node": node}
    return Call(answer=list[FaultReport], method="GET", path="/faults", params=params)


def receipts_key() -> Call[PublicKey]:
    """What receipts are checked with."""
    return Call(answer=PublicKey, method="GET", path="/receipts/key")


def log_names(noun: str, ident: str) -> Call[list[str]]:
    """Log files of a job or a service."""
    return Call(answer=list[str], method="GET", path=f"/{noun}/{ident}/logs")


def log(noun: str, ident: str, name: str, offset: int = 0) -> Call[LogPiece]:
    """A piece of one."""
    path = f"/{noun}/{ident}/logs/{name}"
    return Call(answer=LogPiece, method="GET", path=path, params={"offset": offset})


def deploy(spec: ServiceSpec, once: str) -> Call[Service]:
    """Deploy a model."""
    return Call(answer=Service, method="POST", path="/services", body=to_json(spec), once=once)


def services(*, ended: bool = False) -> Call[list[Service]]:
    """Services, newest first."""
    params = {"ended": ended}
    return Call(answer=list[Service], method="GET", path="/services", params=params)


def service(ident: str) -> Call[Service]:
    """One service."""
    return Call(answer=Service, method="GET", path=f"/services/{ident}")


def stop_service(ident: str) -> Call[Service]:
    """Ask for a service's end."""
    return Call(answer=Service, method="POST", path=f"/services/{ident}/stop", once="same")


def artifacts(kinds: Sequence[ArtifactKind] = ()) -> Call[list[Artifact]]:
    """Artifacts, newest first."""
    params = {"kind": [str(kind) for kind in kinds]}
    return Call(answer=list[Artifact], method="GET", path="/artifacts", params=params)


def artifact(ident: str) -> Call[Artifact]:
    """One artifact."""
    return Call(answer=Artifact, method="GET", path=f"/artifacts/{ident}")


def register(spec: ArtifactSpec) -> Call[Artifact]:
    """Register uploaded files."""
    return Call(answer=Artifact, method="POST", path="/artifacts", body=to_json(spec), once="same")


def remove_artifact(ident: str) -> Call[None]:
    """Forget an artifact."""
    return Call(answer=None, method="DELETE", path=f"/artifacts/{ident}")


def has_blob(digest: str) -> Call[bool]:
    """Whether bytes are there already."""
    return Call(answer=bool, method="GET", path=f"/blobs/{digest}/exists")


def put_blob(digest: str, file: Path) -> Call[FileEntry]:
    """Upload a file's bytes, whose SHA-256 is `digest`."""
    return Call(answer=FileEntry, method="PUT", path=f"/blobs/{digest}", file=file, once="same")


def artifact_file(ident: str, path: str) -> Call[bytes]:
    """The bytes of a file of an artifact."""
    return Call(answer=bytes, method="GET", path=f"/artifacts/{ident}/files/{path}")


def pool() -> Call[list[Node]]:
    """All nodes."""
    return Call(answer=list[Node], method="GET", path="/pool")


def allocations() -> Call[dict[str, Allocation]]:
    """What is held."""
    return Call(answer=dict[str, Allocation], method="GET", path="/pool/allocations")


def why(ident: str) -> Call[Explanation]:
    """Why a job or service waits."""
    return Call(answer=Explanation, method="GET", path=f"/pool/why/{ident}")


def what_if(question: WhatIf) -> Call[WhatIfResult]:
    """What a change would do."""
    body = to_json(question)
    return Call(answer=WhatIfResult, method="POST", path="/pool/what-if", body=body, once="same")


def cordon(node: str, *, closed: bool = True) -> Call[dict[str, str]]:
    """Close a node to new work, or open it."""
    word = "cordon" if closed else "uncordon"
    path = f"/pool/nodes/{node}/{word}"
    return Call(answer=dict[str, str], method="POST", path=path, once="same")


def drain(node: str) -> Call[dict[str, str]]:
    """Close a node and have what can be moved leave it."""
    path = f"/pool/nodes/{node}/drain"
    return Call(answer=dict[str, str], method="POST", path=path, once="same")


def maintenance(node: str, windows: Sequence[MaintenanceWindow]) -> Call[list[MaintenanceWindow]]:
    """Plan a node's maintenance anew."""
    body, path = [to_json(window) for window in windows], f"/pool/nodes/{node}/maintenance"
    return Call(answer=list[MaintenanceWindow], method="PUT", path=path, body=body, once="same")


def overrides() -> Call[dict[str, NodeOverride]]:
    """What operators said of nodes."""
    return Call(answer=dict[str, NodeOverride], method="GET", path="/pool/overrides")


def override_node(node: str, said: NodeOverride) -> Call[NodeOverride]:
    """Say something of a node, in place of what was said before."""
    path = f"/pool/nodes/{node}/override"
    return Call(answer=NodeOverride, method="PUT", path=path, body=to_json(said), once="same")


def defragment(*, carry_out: bool = False) -> Call[DefragResult]:
    """What could be moved together; with `carry_out`, it is."""
    method = "POST" if carry_out else "GET"
    return Call(answer=DefragResult, method=method, path="/pool/defragment", once="same")


def projects() -> Call[list[Project]]:
    """Projects by name."""
    return Call(answer=list[Project], method="GET", path="/projects")


def add_project(project: Project) -> Call[Project]:
    """Make a project."""
    return Call(answer=Project, method="POST", path="/projects", body=to_json(project))


def set_quota(project: Project) -> Call[Project]:
    """Change a quota."""
    path = f"/projects/{project.name}"
    return Call(answer=Project, method="PUT", path=path, body=to_json(project), once="same")


def keys() -> Call[list[KeyView]]:
    """Keys, newest first."""
    return Call(answer=list[KeyView], method="GET", path="/keys")


def create_key(spec: KeySpec) -> Call[NewKey]:
    """Make a key."""
    return Call(answer=NewKey, method="POST", path="/keys", body=to_json(spec))


def revoke_key(ident: str) -> Call[None]:
    """Refuse a key."""
    return Call(answer=None, method="DELETE", path=f"/keys/{ident}")


def secrets(project: str) -> Call[list[str]]:
    """Names of secrets."""
    return Call(answer=list[str], method="GET", path=f"/projects/{project}/secrets")


def put_secret(project: str, name: str, text: str) -> Call[None]:
    """Keep a secret."""
    path = f"/projects/{project}/secrets/{name}"
    return Call(answer=None, method="PUT", path=path, body={"text": text}, once="same")


def usage() -> Call[list[UsageRow]]:
    """Tokens and device-seconds."""
    return Call(answer=list[UsageRow], method="GET", path="/usage")


def audit(limit: int = 100) -> Call[list[AuditRow]]:
    """Who changed what."""
    return Call(answer=list[AuditRow], method="GET", path="/audit", params={"limit": limit})


def join_paper() -> Call[JoinConfig]:
    """How a host joins; needs a node key."""
    return Call(answer=JoinConfig, method="GET", path="/node/join")
