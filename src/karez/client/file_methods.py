"""Methods of both clients that carry files: artifacts, and copies into and out of jobs."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from karez.client import calls, tunnel_calls
from karez.client.archives import pack, unpack
from karez.client.binding import Method
from karez.client.download import finish, partial_of, prepare
from karez.client.drivers import Driver
from karez.client.environment_files import PIP_FORMAT, plan_environment
from karez.client.model_folder import check_upload
from karez.client.steps import Flow, work
from karez.client.upload import UploadPlan, UploadProgress, check_chat_data, plan_upload
from karez.core.artifacts import Artifact, ArtifactKind, ArtifactSpec, FileMode, Lineage
from karez.core.errors import BadRequest, BrokenArtifact
from karez.core.model_formats import model_format
from karez.core.tunnels import MAX_PIECE, Tunnel, TunnelKind, TunnelPiece, TunnelSpec, unpack_piece

CHAT_FORMAT = "chat-jsonl"
"""Format of a data set whose rows are read before it is uploaded."""
_AT_ONCE = 5_000
"""Digests in one request."""


class FileMethods(Driver):
    """Methods that upload, download and copy. Each raises the errors of karez.errors."""

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
            format: Format of the files: hf, gguf, peft or openvino of a model; empty: what they are
                by their names.
            source: Where the files come from.
            licence: Licence of the files, as an SPDX name.
            watch: Called with the progress, as pieces are sent.

        Raises:
            BadRequest: What is at `path` cannot be uploaded: a model's weights are pickles.
            BrokenArtifact: A file of a model's folder is missing or cut off.
            BadRow: A row of a data set of chat rows cannot be used.
        """
        if isinstance(path, UploadPlan):
            plan = path
        else:
            plan = yield from work(partial(plan_upload, Path(path), kind))
        if format == CHAT_FORMAT:
            yield from work(partial(check_chat_data, plan))
        if kind == ArtifactKind.MODEL:
            yield from work(partial(check_upload, plan.root))
        if not format and kind == ArtifactKind.MODEL:
            format = model_format(file.entry.path for file in plan.files)
        yield from self._send_files(plan, project, watch)
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
        upload: Flow[Artifact] = FileMethods.upload(
            self, plan, name=name, kind=kind, project=project, format=PIP_FORMAT
        )
        return (yield from upload)

    def _send_all(self, tunnel: Tunnel, offset: int, data: bytes, *, end: bool) -> Flow[int]:
        """Send bytes into a tunnel until all are taken; returns the offset behind them."""
        left = memoryview(data)
        while True:
            piece, is_last = bytes(left[:MAX_PIECE]), len(left) <= MAX_PIECE
            call = tunnel_calls.tunnel_input(tunnel, offset, piece, end=end and is_last)
            taken = yield from self.ask(call)
            left, offset = left[taken - offset :], taken
            if not left:
                return offset

    def _send_files(
        self, plan: UploadPlan, project: str, watch: Callable[[UploadProgress], None] | None
    ) -> Flow[None]:
        by_digest = {file.entry.sha256: file for file in plan.files}
        digests, missing = list(by_digest), list[str]()
        for at in range(0, len(digests), _AT_ONCE):
            some = digests[at : at + _AT_ONCE]
            missing += yield from self.ask(calls.missing_blobs(some, project))
        size = sum(by_digest[digest].entry.size_bytes for digest in missing)
        progress = UploadProgress(files=len(missing), bytes=size, sent_bytes=0)

        def sent(more: int) -> None:
            nonlocal progress
            progress = replace(progress, sent_bytes=progress.sent_bytes + more)
            if watch is not None:
                watch(progress)

        sent(0)
        for digest in missing:
            try:
                content = by_digest[digest].content
                yield from self.ask(calls.put_blob(digest, content, project, sent))
            except BrokenArtifact as error:
                raise BadRequest(
                    problem=f"{by_digest[digest].entry.path} was changed while it was sent",
                    fix="Send it when nobody writes it, or list it in .karezignore.",
                ) from error

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
            at = 0
            while data := (yield from work(partial(packed.read, MAX_PIECE))):
                at = yield from self._send_all(tunnel, at, data, end=False)
            yield from self._send_all(tunnel, at, b"", end=True)
            piece = TunnelPiece()
            while not piece.has_ended:
                call = tunnel_calls.tunnel_output(tunnel, 0)
                piece = unpack_piece((yield from self.ask(call)))
            yield from self.ask(tunnel_calls.close_tunnel(tunnel))
            if piece.problem:
                raise BadRequest(problem=f"{path} could not be written: {piece.problem}")
