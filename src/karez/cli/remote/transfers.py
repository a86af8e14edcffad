"""Uploads and downloads in the terminal: progress, and what was sent and left out."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from karez.cli.client_options import client
from karez.cli.terminal import say
from karez.client.remote_files import Fetched, brought, is_remote
from karez.client.upload import UploadPlan, UploadProgress, plan_upload, show_left_out
from karez.core.artifacts import Artifact, ArtifactKind
from karez.core.units import show_bytes


def upload(
    path: Path | UploadPlan,
    *,
    name: str,
    kind: ArtifactKind,
    project: str,
    format: str = "",
    source: str = "",
    licence: str = "",
) -> Artifact:
    """Upload a file, a folder or a plan; tell on standard error what was sent and left out."""
    plan = path if isinstance(path, UploadPlan) else plan_upload(path, kind)
    last = UploadProgress(files=0, bytes=0, sent_bytes=0)
    with _bar(f"uploading {plan.root}") as show:

        def watch(progress: UploadProgress) -> None:
            nonlocal last
            last = progress
            show(progress)

        artifact = client().upload(
            plan,
            name=name,
            kind=kind,
            project=project,
            format=format,
            source=source,
            licence=licence,
            watch=watch,
        )
    say(_summary(plan, last), err=True)
    return artifact


@contextmanager
def bringing(path: str, kind: ArtifactKind, licence: str, query: str = "") -> Iterator[Fetched]:
    """Bring what a URL names to this machine, and tell so; a path is one already."""
    if is_remote(path):
        told = "the rows of the query" if query else path  # its URL may have a password
        say(f"bringing {told} to this machine", err=True)
    with brought(path, kind, query) as found:
        yield found
    if is_remote(path) and not (licence or found.licence):
        say("no licence was found with it: note the one it has with --licence", err=True)


def download(artifact: str, folder: Path) -> Artifact:
    """Download an artifact into a folder."""
    with _bar(f"downloading {artifact}") as show:
        return client().download(artifact, folder, watch=show)


def _summary(plan: UploadPlan, sent: UploadProgress) -> str:
    files, size = len(plan.files), show_bytes(plan.size_bytes)
    if not sent.files:
        new = "all of it was there already"
    elif sent.bytes == plan.size_bytes:
        new = "sent"
    else:
        new = f"{sent.files} of them sent, {show_bytes(sent.bytes)}"
    left_out = show_left_out(plan.left_out)
    return f"{plan.root}: {files} file{'s' * (files != 1)}, {size}; {new}" + (
        f"; {left_out}" if left_out else ""
    )


@contextmanager
def _bar(what: str) -> Iterator[Callable[[UploadProgress], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Progress(
        *columns,
        TransferSpeedColumn(),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda progress: bar.update(task, total=progress.bytes, completed=progress.sent_bytes)
