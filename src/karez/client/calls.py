"""API requests as values: the cloud, jobs, services, logs and artifacts.

The sync and the async client share them; `pool_calls` and `access_calls` hold the other requests.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from karez.client.paths import in_path
from karez.core.api_models import (
    LogPiece,
    PublicKey,
    ReceiptView,
    Summary,
)
from karez.core.artifacts import Artifact, ArtifactKind, ArtifactSpec, FileEntry
from karez.core.chaos import FaultSpec, InjectedFault
from karez.core.codec import to_json
from karez.core.fit import FitReport
from karez.core.goodput import Goodput
from karez.core.jobs import Job, JobSpec
from karez.core.receipts import SignedReceipts
from karez.core.recovery import Transition
from karez.core.services import Service, ServiceSpec
from karez.core.traces import Trace
from karez.core.usage import MetricRow
from karez.core.workloads import State

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request to the API and the type of the answer."""

    answer: Any
    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    once: str = ""
    """Idempotency key; empty where sending the request twice is not safe."""
    content: Path | bytes | None = None
    """Bytes of the request body, or the file that has them."""
    sent: Callable[[int], None] | None = None
    """Called with the size of each piece of the content that was sent."""
    save: Path | None = None
    """File that the answer's bytes are written to."""


def summary() -> Call[Summary]:
    """Get a summary of the cloud: nodes, devices, workloads and addresses."""
    return Call(answer=Summary, method="GET", path="/status")


def submit(spec: JobSpec, once: str, *, dry_run: bool = False) -> Call[Job]:
    """Queue a job; with `dry_run` it is only checked."""
    params = {"dry_run": True} if dry_run else {}
    body = to_json(spec)
    return Call(answer=Job, method="POST", path="/jobs", params=params, body=body, once=once)


def jobs(states: Sequence[State] = (), limit: int = 100, array: str = "") -> Call[list[Job]]:
    """List jobs, newest first.

    An array is one job, unless its jobs (`array`) or those in some states are asked for.
    """
    params: dict[str, Any] = {"state": [str(state) for state in states], "limit": limit}
    params |= {"array": array} if array else {}
    return Call(answer=list[Job], method="GET", path="/jobs", params=params)


def job(ident: str) -> Call[Job]:
    """Get one job, or an array as one, by id or name."""
    return Call(answer=Job, method="GET", path=f"/jobs/{in_path(ident)}")


def cancel(ident: str) -> Call[Job]:
    """Cancel a job, or all jobs of an array."""
    return Call(answer=Job, method="POST", path=f"/jobs/{in_path(ident)}/cancel", once="same")


def metrics(ident: str, after: int = -1) -> Call[list[MetricRow]]:
    """List the loss of each step and rank after a step."""
    params = {"after": after}
    return Call(
        answer=list[MetricRow], method="GET", path=f"/jobs/{in_path(ident)}/metrics", params=params
    )


def receipts(ident: str) -> Call[list[ReceiptView]]:
    """List a job's recoveries as receipts."""
    return Call(answer=list[ReceiptView], method="GET", path=f"/jobs/{in_path(ident)}/receipts")


def signed_receipts(ident: str) -> Call[SignedReceipts]:
    """Get all receipts of a job with their signed head, for `karez receipts verify`."""
    return Call(answer=SignedReceipts, method="GET", path=f"/jobs/{in_path(ident)}/receipts/signed")


def trace(ident: str) -> Call[Trace]:
    """Get a job's way through the queue, starts, steps and recoveries."""
    return Call(answer=Trace, method="GET", path=f"/jobs/{in_path(ident)}/trace")


def goodput(ident: str) -> Call[Goodput]:
    """Get the share of a job's time that went into steps that count."""
    return Call(answer=Goodput, method="GET", path=f"/jobs/{in_path(ident)}/goodput")


def transitions(ident: str) -> Call[list[Transition]]:
    """List the log of a job's recovery protocol."""
    return Call(answer=list[Transition], method="GET", path=f"/jobs/{in_path(ident)}/transitions")


def inject_faults(ident: str, specs: Sequence[FaultSpec]) -> Call[list[InjectedFault]]:
    """Inject faults into a job that allows chaos."""
    body = [to_json(spec) for spec in specs]
    return Call(
        answer=list[InjectedFault], method="POST", path=f"/jobs/{in_path(ident)}/faults", body=body
    )


def receipts_key() -> Call[PublicKey]:
    """Get the public key that receipts are verified with."""
    return Call(answer=PublicKey, method="GET", path="/receipts/key")


def log_names(noun: str, ident: str) -> Call[list[str]]:
    """List the log files of a job or a service."""
    return Call(answer=list[str], method="GET", path=f"/{noun}/{in_path(ident)}/logs")


def log(noun: str, ident: str, name: str, offset: int = 0) -> Call[LogPiece]:
    """Read a piece of a log file, from an offset in bytes."""
    path = f"/{noun}/{in_path(ident)}/logs/{name}"
    return Call(answer=LogPiece, method="GET", path=path, params={"offset": offset})


def deploy(spec: ServiceSpec, once: str) -> Call[Service]:
    """Deploy a model as a service."""
    return Call(answer=Service, method="POST", path="/services", body=to_json(spec), once=once)


def fit_service(spec: ServiceSpec) -> Call[FitReport]:
    """The engine that would serve a model, and the memory of a replica."""
    return Call(answer=FitReport, method="POST", path="/services/fit", body=to_json(spec))


def update_service(ident: str, spec: ServiceSpec) -> Call[Service]:
    """Ask something else of a service."""
    path = f"/services/{in_path(ident)}"
    return Call(answer=Service, method="PUT", path=path, body=to_json(spec), once="same")


def services(*, ended: bool = False) -> Call[list[Service]]:
    """List services, newest first."""
    params = {"ended": ended}
    return Call(answer=list[Service], method="GET", path="/services", params=params)


def service(ident: str) -> Call[Service]:
    """Get one service by id or name."""
    return Call(answer=Service, method="GET", path=f"/services/{in_path(ident)}")


def stop_service(ident: str) -> Call[Service]:
    """Stop a service."""
    return Call(answer=Service, method="POST", path=f"/services/{in_path(ident)}/stop", once="same")


def artifacts(kinds: Sequence[ArtifactKind] = ()) -> Call[list[Artifact]]:
    """List artifacts, newest first."""
    params = {"kind": [str(kind) for kind in kinds]}
    return Call(answer=list[Artifact], method="GET", path="/artifacts", params=params)


def artifact(ident: str) -> Call[Artifact]:
    """Get one artifact by id or name."""
    return Call(answer=Artifact, method="GET", path=f"/artifacts/{in_path(ident)}")


def register(spec: ArtifactSpec) -> Call[Artifact]:
    """Register uploaded files as an artifact."""
    return Call(answer=Artifact, method="POST", path="/artifacts", body=to_json(spec), once="same")


def remove_artifact(ident: str) -> Call[None]:
    """Remove an artifact that nothing uses."""
    return Call(answer=None, method="DELETE", path=f"/artifacts/{in_path(ident)}")


def missing_blobs(digests: Sequence[str], project: str) -> Call[list[str]]:
    """Which of the bytes with these SHA-256 a project has to send."""
    return Call(
        answer=list[str],
        method="POST",
        path="/blobs/missing",
        params={"project": project},
        body=list(digests),
        once="same",
    )


def put_blob(
    digest: str,
    content: Path | bytes,
    project: str,
    sent: Callable[[int], None] | None = None,
) -> Call[FileEntry]:
    """Upload bytes for a project, or those of a file, whose SHA-256 is `digest`."""
    return Call(
        answer=FileEntry,
        method="PUT",
        path=f"/blobs/{digest}",
        params={"project": project},
        content=content,
        sent=sent,
        once="same",
    )


def artifact_file(ident: str, path: str) -> Call[bytes]:
    """Download one file of an artifact."""
    return Call(answer=bytes, method="GET", path=f"/artifacts/{in_path(ident)}/files/{quote(path)}")


def save_artifact_file(ident: str, path: str, to: Path) -> Call[None]:
    """Download one file of an artifact into a local file."""
    path = f"/artifacts/{in_path(ident)}/files/{quote(path)}"
    return Call(answer=None, method="GET", path=path, save=to)
