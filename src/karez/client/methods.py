"""The methods of `karez.Client` and `karez.AsyncClient`, written once (client.steps)."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from karez.client import access_calls, alert_calls, calls, pool_calls, tunnel_calls
from karez.client.archives import pack, unpack
from karez.client.binding import Method, Stream, endpoint
from karez.client.download import finish, partial_of, prepare
from karez.client.drivers import Driver
from karez.client.environment_files import PIP_FORMAT, plan_environment
from karez.client.steps import Emit, Flow, Items, pause, work
from karez.client.upload import UploadPlan, UploadProgress, check_chat_data, plan_upload
from karez.core.artifacts import Artifact, ArtifactKind, ArtifactSpec, FileMode, Lineage
from karez.core.errors import BadRequest, Failed
from karez.core.jobs import Job, JobSpec
from karez.core.services import Service, ServiceSpec
from karez.core.tunnels import (
    MAX_PIECE,
    Tunnel,
    TunnelKind,
    TunnelPiece,
    TunnelSpec,
    unpack_piece,
)
from karez.core.workloads import ENDED, State

CHAT_FORMAT = "chat-jsonl"
"""Format of a data set whose rows are read before it is uploaded."""
_AT_ONCE = 5_000
"""Digests in one request."""


class Methods(Driver):
    """Methods of both clients. Each method raises the errors of karez.errors."""

    summary = endpoint(calls.summary)
    whoami = endpoint(access_calls.whoami)

    # jobs

    jobs = endpoint(calls.jobs)
    job = endpoint(calls.job)
    cancel = endpoint(calls.cancel)
    metrics = endpoint(calls.metrics)
    receipts = endpoint(calls.receipts)
    trace = endpoint(calls.trace)
    goodput = endpoint(calls.goodput)
    transitions = endpoint(calls.transitions)
    inject_faults = endpoint(calls.inject_faults)
    log_names = endpoint(calls.log_names)
    log = endpoint(calls.log)

    # tunnels into running jobs

    open_tunnel = endpoint(tunnel_calls.open_tunnel)
    tunnel_input = endpoint(tunnel_calls.tunnel_input)
    resize_tunnel = endpoint(tunnel_calls.resize_tunnel)
    close_tunnel = endpoint(tunnel_calls.close_tunnel)

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

    pool = endpoint(pool_calls.pool)
    allocations = endpoint(pool_calls.allocations)
    why = endpoint(pool_calls.why)
    what_if = endpoint(pool_calls.what_if)
    cordon = endpoint(pool_calls.cordon)
    drain = endpoint(pool_calls.drain)
    maintenance = endpoint(pool_calls.maintenance)
    overrides = endpoint(pool_calls.overrides)
    override_node = endpoint(pool_calls.override_node)
    defragment = endpoint(pool_calls.defragment)
    faults = endpoint(pool_calls.faults)
    report_fault = endpoint(pool_calls.report_fault)
    receipts_key = endpoint(calls.receipts_key)

    # alerts

    alerts = endpoint(alert_calls.alerts)
    put_alert = endpoint(alert_calls.put_alert)
    remove_alert = endpoint(alert_calls.remove_alert)
    try_alert = endpoint(alert_calls.try_alert)
    sent_alerts = endpoint(alert_calls.sent_alerts)

    # projects, keys, usage

    projects = endpoint(access_calls.projects)
    add_project = endpoint(access_calls.add_project)
    set_quota = endpoint(access_calls.set_quota)
    keys = endpoint(access_calls.keys)
    create_key = endpoint(access_calls.create_key)
    revoke_key = endpoint(access_calls.revoke_key)
    secrets = endpoint(access_calls.secrets)
    put_secret = endpoint(access_calls.put_secret)
    usage = endpoint(access_calls.usage)
    audit = endpoint(access_calls.audit)

    @Method
    def submit(self, spec: JobSpec) -> Flow[Job]:
        """Queue a job; a lost connection never queues the job twice."""
        return self.ask(calls.submit(spec, uuid.uuid4().hex))

    @Method
    def check(self, spec: JobSpec) -> Flow[Job]:
        """Check a job as `submit` does, without queueing it. Raises what `submit` raises."""
        return self.ask(calls.submit(spec, uuid.uuid4().hex, dry_run=True))

    @Method
    def deploy(self, spec: ServiceSpec) -> Flow[Service]:
        """Deploy a model; a lost connection never deploys the model twice."""
        return self.ask(calls.deploy(spec, uuid.uuid4().hex))

    @Method
    def wait(
        self, ident: str, *, watch: Callable[[Job], None] | None = None, limit_s: float = 3600.0
    ) -> Flow[Job]:
        """Wait until a job has ended. Raises Failed if the job did not succeed in time.

        Args:
            ident: Id or name of the workload.
            watch: Called with the job at each poll.
            limit_s: Seconds to wait at most.
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
        """Wait until all replicas of a service are ready. Raises Failed after `limit_s` seconds."""
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
    def upload(  # noqa: PLR0913 - one parameter for each property of an artifact
        self,
        path: str | Path | UploadPlan,
        *,
        name: str,
        kind: ArtifactKind,
        project: str = "default",
        format: str = "",
        source: str = "",
        licence: str = "",
        watch: Callable[[UploadProgress], None] | None = None,
    ) -> Flow[Artifact]:
        """Upload a file or folder as an artifact. Bytes that the store already has are not sent.

        Args:
            path: File or folder, or a plan of karez.client.upload.plan_upload.
            name: Name of the artifact.
            kind: Model, data set or code.
            project: Project that owns the artifact.
            format: Format of the files, such as safetensors.
            source: Where the files come from.
            licence: Licence of the files, as an SPDX name.
            watch: Called with the progress, as pieces are sent.

        Raises:
            BadRequest: What is at `path` cannot be uploaded.
            BadRow: A row of a data set of chat rows cannot be used.
        """
        if isinstance(path, UploadPlan):
            plan = path
        else:
            plan = yield from work(partial(plan_upload, Path(path), kind))
        if format == CHAT_FORMAT:
            yield from work(partial(check_chat_data, plan))
        yield from self._send_files(plan, watch)
        spec = ArtifactSpec(
            name=name,
            kind=kind,
            files=tuple(file.entry for file in plan.files),
            project=project,
            format=format,
            lineage=Lineage(source=source, licence=licence),
        )
        return (yield from self.ask(calls.register(spec)))

    @Method
    def add_environment(
        self,
        requirements: str | Path,
        *,
        name: str,
        wheels: str | Path | None = None,
        project: str = "default",
    ) -> Flow[Artifact]:
        """Upload the Python packages of jobs as an environment.

        Args:
            requirements: File in pip's format.
            name: Name of the environment.
            wheels: Folder whose wheels are all that nodes install from.
            project: Project that owns the environment.

        Raises:
            BadRequest: A file cannot be read, or nodes could not install what it lists.
        """
        folder = None if wheels is None else Path(wheels)
        plan = yield from work(partial(plan_environment, Path(requirements), folder))
        kind = ArtifactKind.ENVIRONMENT
        upload: Flow[Artifact] = Methods.upload(
            self, plan, name=name, kind=kind, project=project, format=PIP_FORMAT
        )
        return (yield from upload)

    def _send_files(
        self, plan: UploadPlan, watch: Callable[[UploadProgress], None] | None
    ) -> Flow[None]:
        by_digest = {file.entry.sha256: file for file in plan.files}
        digests, missing = list(by_digest), list[str]()
        for at in range(0, len(digests), _AT_ONCE):
            missing += yield from self.ask(calls.missing_blobs(digests[at : at + _AT_ONCE]))
        size = sum(by_digest[digest].entry.size_bytes for digest in missing)
        progress = UploadProgress(files=len(missing), bytes=size, sent_bytes=0)

        def sent(more: int) -> None:
            nonlocal progress
            progress = replace(progress, sent_bytes=progress.sent_bytes + more)
            if watch is not None:
                watch(progress)

        sent(0)
        for digest in missing:
            yield from self.ask(calls.put_blob(digest, by_digest[digest].content, sent))

    @Method
    def download(
        self,
        ident: str,
        folder: str | Path,
        *,
        watch: Callable[[UploadProgress], None] | None = None,
    ) -> Flow[Artifact]:
        """Download all files of an artifact into a folder, each checked against its digest.

        Args:
            ident: Id or name of the artifact.
            folder: A new or empty folder.
            watch: Called with the progress, after each file.

        Raises:
            BadRequest: The folder holds something.
            BrokenArtifact: A file arrived with other content.
        """
        artifact = yield from self.ask(calls.artifact(ident))
        target, done = Path(folder), 0
        yield from work(partial(prepare, target, artifact))
        for entry in artifact.spec.files:
            if entry.mode == FileMode.FOLDER:
                yield from work(partial((target / entry.path).mkdir, parents=True, exist_ok=True))
                continue
            part = yield from work(partial(partial_of, target, entry))
            yield from self.ask(calls.save_artifact_file(artifact.id, entry.path, part))
            yield from work(partial(finish, target, entry, part))
            done += entry.size_bytes
            size, files = artifact.size_bytes, len(artifact.spec.files)
            if watch is not None:
                watch(UploadProgress(files=files, bytes=size, sent_bytes=done))
        return artifact

    @Method
    def tunnel_output(self, tunnel: Tunnel, offset: int) -> Flow[TunnelPiece]:
        """Get bytes from an offset on, waiting up to a second for some."""
        return unpack_piece((yield from self.ask(tunnel_calls.tunnel_output(tunnel, offset))))

    @Method
    def copy_from_job(
        self, ident: str, path: str, target: str | Path, *, rank: int = 0
    ) -> Flow[list[Path]]:
        """Copy a file or folder of a running job, as `cp -r` does; nothing if that fails.

        Args:
            ident: Id or name of the job.
            path: Relative to the folder that the job runs in, or absolute.
            target: A folder that is there, or a new name.
            rank: Whose files.

        Returns:
            The files and folders that were made.

        Raises:
            BadRequest: The path is none of the job's, or the target cannot be written.
            NotFound: There is no such path.
        """
        spec = TunnelSpec(kind=TunnelKind.COPY_OUT, rank=rank, path=path)
        tunnel = yield from self.ask(tunnel_calls.open_tunnel(ident, spec))
        with TemporaryFile() as file:
            piece = TunnelPiece()
            while not piece.has_ended:
                call = tunnel_calls.tunnel_output(tunnel, piece.next)
                piece = unpack_piece((yield from self.ask(call)))
                yield from work(partial(file.write, piece.data))
            yield from self.ask(tunnel_calls.close_tunnel(tunnel))
            if piece.problem:
                raise BadRequest(problem=f"{path} could not be read: {piece.problem}")
            return (yield from work(partial(unpack, file, Path(target))))

    @Method
    def copy_to_job(
        self, source: str | Path, ident: str, path: str, *, rank: int = 0
    ) -> Flow[None]:
        """Copy a file or folder into a folder of a running job; nothing if that fails.

        Args:
            source: File or folder here.
            ident: Id or name of the job.
            path: A folder, relative to the one that the job runs in, or absolute; it is made.
            rank: Whose files.

        Raises:
            BadRequest: The path is none of the job's folders, or cannot be written.
        """
        with TemporaryFile() as packed:
            yield from work(partial(pack, Path(source), packed))
            spec = TunnelSpec(kind=TunnelKind.COPY_IN, rank=rank, path=path)
            tunnel = yield from self.ask(tunnel_calls.open_tunnel(ident, spec))
            data, at, is_last = b"", 0, False
            while not is_last or data:
                if not data:
                    data = yield from work(partial(packed.read, MAX_PIECE))
                    is_last = not data
                taken = yield from self.ask(
                    tunnel_calls.tunnel_input(tunnel, at, data, end=is_last)
                )
                data, at = data[taken - at :], taken
            piece = TunnelPiece()
            while not piece.has_ended:
                call = tunnel_calls.tunnel_output(tunnel, 0)
                piece = unpack_piece((yield from self.ask(call)))
            yield from self.ask(tunnel_calls.close_tunnel(tunnel))
            if piece.problem:
                raise BadRequest(problem=f"{path} could not be written: {piece.problem}")

    @Stream
    def follow_logs(self, noun: str, ident: str, *, follow: bool) -> Items[tuple[str, str]]:
        """Yield (file, text) pieces of a workload's output; with `follow`, until the workload ends.

        Args:
            noun: "jobs" or "services".
            ident: Id or name of the workload.
            follow: Continue until the workload has ended.
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
