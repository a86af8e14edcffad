"""`karez migrate scan`: list the CUDA-bound constructs of a repository."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import Json
from karez.cli.offline.migrate.scan_output import show_scan
from karez.cli.offline.progress import write_page
from karez.cli.terminal import say
from karez.core.errors import BadRequest


def scan_command(
    repository: Annotated[str, typer.Argument(help="Folder, file, or URL of a git repository.")],
    report: Annotated[Path | None, typer.Option(help="Write an HTML report to this file.")] = None,
    sarif: Annotated[
        Path | None, typer.Option(help="Write a SARIF file for code review tools.")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Number of parallel processes; 0: one per CPU core.", min=0)
    ] = 0,
    as_json: Json = False,
) -> None:
    """List every CUDA-bound construct of a repository and how it can be migrated.

    Nothing is changed. A finding is automatic (rewritten by `karez migrate rewrite`), assisted (a
    question has to be answered), manual, or kept because it works unchanged.

    Example: karez migrate scan ~/src/nanoGPT --report nanogpt.html
    """
    from karez.migration import scan  # noqa: PLC0415 - keeps --help fast
    from karez.migration.reports import (  # noqa: PLC0415 - keeps --help fast
        html_report,
        json_report,
        sarif_report,
    )

    with _local_copy(repository) as root:
        found = scan.scan(root, workers=workers)
    found.root = repository
    write_page(report, html_report.as_html(found))
    if sarif is not None:
        sarif.write_text(json.dumps(sarif_report.as_sarif(found), indent=1) + "\n")
    if as_json:
        say(json.dumps(json_report.as_json(found), indent=1))
    else:
        show_scan(json_report.as_json(found))


@contextmanager
def _local_copy(repository: str) -> Iterator[Path]:
    """Yield a local path; a git URL is cloned into a temporary folder first."""
    if "://" not in repository and not repository.startswith("git@"):
        yield Path(repository)
        return
    with tempfile.TemporaryDirectory(prefix="kz-") as folder:
        _clone(repository, f"{folder}/repository")
        yield Path(folder, "repository")


def _clone(url: str, folder: str) -> None:
    """Clone the newest commit. Raises BadRequest."""
    command = ["git", "clone", "--quiet", "--depth", "1", url, folder]
    try:
        done = subprocess.run(  # noqa: S603 - git, with the URL that the user gave
            command, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise BadRequest(problem="git is not installed", fix="Clone it elsewhere.") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason"]
        reason = next((line for line in lines if line.startswith("fatal:")), lines[-1])
        raise BadRequest(
            problem=f"{url} could not be cloned: {reason}",
            fix="Without a network, clone it elsewhere and name the folder.",
        )
