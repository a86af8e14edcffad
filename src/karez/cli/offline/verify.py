"""What `karez migrate verify` does around the comparison: the key, the files, the words."""

import datetime
import json
import shlex
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

import karez
from karez.cli.client_options import client
from karez.cli.offline.progress import write_page
from karez.client.address import state_folder
from karez.core.errors import BadRequest
from karez.equivalence import certificate as papers
from karez.equivalence.run import Order, Outcome, Runner, compare_folders, verify
from karez.experiments import remote_verify


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """The command's options."""

    original: Path
    migrated: Path
    words: Sequence[str]
    """Script and arguments, as they stand behind --."""
    reference: str
    target: str
    reference_args: str
    steps: int
    most: int
    kernels: Path | None
    fault: str
    certificate: Path | None
    report: Path | None
    keep: Path | None
    on: str
    reference_on: str
    project: str
    ranks: int
    chip: str


def run_verify(asked: VerifyRequest, *, quiet: bool) -> dict[str, Any]:
    """Compare, sign, write. Raises BadRequest."""
    words = [word for word in asked.words if word != "--"]
    if not words:
        raise BadRequest(
            problem="no script was named", fix="Name it behind --, as in -- train.py --epochs 1"
        )
    runners = _runners(asked)
    order = Order(
        original=asked.original,
        migrated=asked.migrated,
        words=words,
        reference=_reference(asked),
        target=_target(asked),
        reference_words=shlex.split(asked.reference_args),
        steps=asked.steps,
        most=asked.most,
        kernels=asked.kernels,
        fault=asked.fault,
        ranks=asked.ranks,
        chip=asked.chip,
    )
    fresh = tempfile.TemporaryDirectory(prefix="kz-")
    with nullcontext(str(asked.keep)) if asked.keep else fresh as folder:
        found = verify(order, Path(folder), _say_aside, runners)
    return _finish(found, asked.certificate, asked.report, quiet=quiet)


def compare(
    reference: Path,
    target: Path,
    again: Path | None,
    rank: int,
    papers_to: tuple[Path | None, Path | None],
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Two records that are there already. Raises BadRequest."""
    found = compare_folders(reference, target, again, rank)
    return _finish(found, *papers_to, quiet=quiet)


def _finish(
    found: Outcome, certificate: Path | None, report: Path | None, *, quiet: bool
) -> dict[str, Any]:
    """Sign, write, say."""
    now = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")  # noqa: TID251 - a paper's date
    body = papers.certificate(found, now=now, version=karez.__version__)
    signed = papers.sign(body, state_folder() / "migration.key")
    write_page(certificate, json.dumps(signed, indent=1) + "\n", "certificate")
    write_page(report, papers.page(signed, found))
    if not quiet:
        _say(signed, found)
    return signed


def _runners(asked: VerifyRequest) -> dict[str, Runner]:
    sides = {"target": asked.on, "reference": asked.reference_on}
    needs = {side: need for side, need in sides.items() if need and remote_verify.kind_of(need)}
    if not needs:
        return {}
    cloud = client()
    return {
        side: remote_verify.OnPool(client=cloud, need=need, project=asked.project, say=_say_aside)
        for side, need in needs.items()
    }


def _target(asked: VerifyRequest) -> str:
    if asked.target or not asked.on:
        return asked.target or "emulated"
    return remote_verify.TARGETS[remote_verify.kind_of(asked.on)]


def _reference(asked: VerifyRequest) -> str:
    if asked.reference or not asked.reference_on:
        return asked.reference or "cpu"
    return remote_verify.REFERENCES[remote_verify.kind_of(asked.reference_on)]


def _say_aside(line: str) -> None:
    typer.echo(line, err=True)


def check(path: Path, key: str) -> str:
    """A sentence. Raises BadRequest where the certificate is not to be believed."""
    try:
        signed = json.loads(path.read_text())
        public = bytes.fromhex(key) if key else None
    except (OSError, ValueError) as error:
        raise BadRequest(problem=f"{path} cannot be read: {error}") from error
    why = papers.check(signed, public)
    if why:
        raise BadRequest(problem=f"{path}: {why}")
    word = "lossless" if signed["lossless"] else "not lossless"
    return f"{path}: {word}, signed with {signed['key']} at {signed['made_at']}"


def _say(signed: dict[str, Any], found: Outcome) -> None:
    compared, verdict = signed["compared"], found.verdict
    typer.echo(
        f"{compared['modules_forward']} forward, {compared['modules_backward']} backward, "
        f"{compared['optimizer_states']} optimizer states, {compared['gradients']} gradients of "
        f"modules, {compared['losses']} losses"
    )
    worst = verdict.worst
    if worst is not None:
        typer.echo(f"largest difference {worst.error:.2e} of {worst.limit:.2e}: {worst.name}")
    if compared["losses"]:
        typer.echo(f"losses differ by {verdict.loss_error:.2e} (allowed {verdict.loss_limit:.2e})")
    first = signed["first_difference"]
    if first:
        inside = f", in {first['operator']}" if first["operator"] else ""
        typer.echo(
            f"they part at {first['name']} ({first['type']}), {first['kind']}, step "
            f"{first['step'] + 1}{inside}: {first['problem'] or format(first['error'], '.2e')}"
        )
    for line in verdict.unmatched[:5]:
        typer.echo(f"only in one of them: {line}")
    typer.echo("lossless" if signed["lossless"] else "NOT lossless")
