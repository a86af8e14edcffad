"""The methods of `karez.Client` and `karez.AsyncClient`, written once (client.steps)."""

import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from karez.client import calls
from karez.client.binding import Method, Stream, endpoint
from karez.client.drivers import Driver
from karez.client.steps import Emit, Flow, Items, pause, work
from karez.client.upload import all_local_files
from karez.core.artifacts import Artifact, ArtifactKind, ArtifactSpec, Lineage
from karez.core.errors import BadRequest, Failed
from karez.core.jobs import Job, JobSpec
from karez.core.services import Service, ServiceSpec
from karez.core.workloads import ENDED, State


class Methods(Driver):
    """What a cloud can be asked. Each method raises the errors of karez.errors."""

    summary = endpoint(calls.summary)
    whoami = endpoint(calls.whoami)

    # jobs

    jobs = endpoint(calls.jobs)
    job = endpoint(calls.job)
    cancel = endpoint(calls.cancel)
    metrics = endpoint(calls.metrics)
    receipts = endpoint(calls.receipts)
    goodput = endpoint(calls.goodput)
    transitions = endpoint(calls.transitions)
    inject_faults = endpoint(calls.inject_faults)
    log_names = endpoint(calls.log_names)
    log = endpoint(calls.log)

    # services and artifacts

    services = endpoint(calls.services)
    service = endpoint(calls.service)
    stop_service = endpoint(calls.stop_service)
    artifacts = endpoint(calls.artifacts)
    artifact = endpoint(calls.artifact)
    artifact_file = endpoint(calls.artifact_file)
    register = endpoint(calls.register)
    remove_artifact = endpoint(calls.remove_artifact)

    # the pool

    pool = endpoint(calls.pool)
    allocations = endpoint(calls.allocations)
    why = endpoint(calls.why)
    what_if = endpoint(calls.what_if)
    cordon = endpoint(calls.cordon)
    drain = endpoint(calls.drain)
    maintenance = endpoint(calls.maintenance)
    overrides = endpoint(calls.overrides)
    override_node = endpoint(calls.override_node)
    defragment = endpoint(calls.defragment)
    faults = endpoint(calls.faults)
    report_fault = endpoint(calls.report_fault)
    receipts_key = endpoint(calls.receipts_key)

    # projects, keys, usage

    projects = endpoint(calls.projects)
    add_project = endpoint(calls.add_project)
    set_quota = endpoint(calls.set_quota)
    keys = endpoint(calls.keys)
    create_key = endpoint(calls.create_key)
    revoke_key = endpoint(calls.revoke_key)
    secrets = endpoint(calls.secrets)
    put_secret = endpoint(calls.put_secret)
    usage = endpoint(calls.usage)
    audit = endpoint(calls.audit)

    @Method
    def submit(self, spec: JobSpec) -> Flow[Job]:
        """Queue a job; a connection lost on the way never queues it twice."""
        return self.ask(calls.submit(spec, uuid.uuid4().hex))

    @Method
    def deploy(self, spec: ServiceSpec) -> Flow[Service]:
        """Deploy a model; a connection lost on the way never deploys it twice."""
        return self.ask(calls.deploy(spec, uuid.uuid4().hex))

    @Method
    def wait(
        self, ident: str, *, watch: Callable[[Job], None] | None = None, limit_s: float = 3600.0
    ) -> Flow[Job]:
        """Wait until a job has ended. Raises Failed if it did not succeed, or not in time.

        Args:
            ident: Its id or name.
            watch: Called with the job at each look.
            limit_s: How long to wait at most.
        """
        deadline = (yield from pause()) + limit_s
        while True:
            job = yield from self.ask(calls.job(ident))
            if watch is not None:
                watch(job)
            if job.state in ENDED:
                return _succeeded(job)
            if (yield from pause()) > deadline:
                raise Failed(noun="job", name=ident, reason=f"not done after {limit_s:.0f} s.")
            yield from pause(0.25)

    @Method
    def wait_ready(self, ident: str, *, limit_s: float = 120.0) -> Flow[Service]:
        """Wait until all replicas of a service are ready. Raises Failed if they are not in time."""
        deadline = (yield from pause()) + limit_s
        while True:
            service = yield from self.ask(calls.service(ident))
            ready = [view for view in service.status.ranks if view.state == "ready"]
            if len(ready) == service.spec.replicas:
                return service
            if service.state in ENDED or (yield from pause()) > deadline:
                reason = service.status.reason or f"not ready after {limit_s:.0f} s."
                raise Failed(noun="service", name=ident, reason=reason)
            yield from pause(0.2)

    @Method
    def upload(  # noqa: PLR0913 - what an artifact is described by
        self,
        path: str | Path,
        *,
        name: str,
        kind: ArtifactKind,
        project: str = "default",
        format: str = "",
        source: str = "",
        licence: str = "",
    ) -> Flow[Artifact]:
        """Register a file or folder as an artifact. Bytes that are there already are not sent.

        Args:
            path: File or folder.
            name: What to call it.
            kind: What it is.
            project: Whose it is.
            format: Of its files, such as safetensors.
            source: Where it came from.
            licence: Under which it may be used.

        Raises:
            BadRequest: Nothing there.
        """
        found = yield from work(partial(all_local_files, Path(path)))
        if not found:
            raise BadRequest(problem=f"there are no files at {path}")
        for entry, file in found:
            if not (yield from self.ask(calls.has_blob(entry.sha256))):
                yield from self.ask(calls.put_blob(entry.sha256, file))
        spec = ArtifactSpec(
            name=name,
            kind=kind,
            files=tuple(entry for entry, _ in found),
            project=project,
            format=format,
            lineage=Lineage(source=source, licence=licence),
        )
        return (yield from self.ask(calls.register(spec)))

    @Stream
    def follow_logs(self, noun: str, ident: str, *, follow: bool) -> Items[tuple[str, str]]:
        """(file, text) pieces of a workload's output; with `follow` until it has ended.

        Args:
            noun: "jobs" or "services".
            ident: Its id or name.
            follow: Go on until it has ended.
        """
        offsets: dict[str, int] = {}
        while True:
            ended = yield from self._ended(noun, ident)
            for name in (yield from self.ask(calls.log_names(noun, ident))):
                while True:
                    call = calls.log(noun, ident, name, offsets.get(name, 0))
                    piece = yield from self.ask(call)
                    offsets[name] = piece.next
                    if not piece.text:
                        break
                    yield Emit((name, piece.text))
            if ended or not follow:
                return
            yield from pause(0.5)

    def _ended(self, noun: str, ident: str) -> Flow[bool]:
        if noun == "services":
            return (yield from self.ask(calls.service(ident))).state in ENDED
        return (yield from self.ask(calls.job(ident))).state in ENDED


def _succeeded(job: Job) -> Job:
    if job.state != State.SUCCEEDED:
        reason = f"{job.status.end or job.state}: {job.status.reason}"
        raise Failed(noun="job", name=job.spec.name, reason=reason)
    return job
