"""Run a verification, sign the certificate and print the result."""

import datetime
import json
import shlex
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import karez
from karez.cli.client_options import client
from karez.cli.offline.migrate.verify_options import VerifyOptions
from karez.cli.offline.progress import write_page
from karez.cli.terminal import say
from karez.client.address import state_folder
from karez.core.errors import BadRequest
from karez.equivalence import certificate as certificates
from karez.equivalence import signed_certificate
from karez.equivalence.run import Outcome, compare_folders, verify
from karez.equivalence.run_spec import Runner, VerifyRequest
from karez.experiments import remote_verify


def run_verify(options: VerifyOptions, arguments: Sequence[str], *, quiet: bool) -> dict[str, Any]:
    """Run both scripts, compare their records, and sign and print the result.

    Args:
        options: Options of the command.
        arguments: Script and its arguments, as given after `--`.
        quiet: Print nothing but notices on standard error.

    Raises:
        BadRequest: An option or the script is missing or invalid, or a run failed.
    """
    words = [word for word in arguments if word != "--"]
    if not words:
        raise BadRequest(
            problem="no script was named", fix="Name it behind --, as in -- train.py --epochs 1"
        )
    runners = _runners(options)
    order = _order(options, words)
    temporary = tempfile.TemporaryDirectory(prefix="kz-")
    with nullcontext(str(options.keep)) if options.keep else temporary as folder:
        outcome = verify(order, Path(folder), _notice, runners)
    return _finish(outcome, options.certificate, options.report, quiet=quiet)


def _order(options: VerifyOptions, words: Sequence[str]) -> VerifyRequest:
    return VerifyRequest(
        original=options.original,
        migrated=options.migrated,
        words=words,
        reference=_reference(options),
        target=_target(options),
        reference_words=shlex.split(options.reference_args),
        steps=options.steps,
        most=options.most,
        kernels=options.kernels,
        fault=options.fault,
        ranks=options.ranks,
        chip=options.chip,
    )


def compare(
    reference: Path,
    target: Path,
    again: Path | None,
    rank: int,
    outputs: tuple[Path | None, Path | None],
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Compare two existing records, and sign and print the result. Raises BadRequest."""
    outcome = compare_folders(reference, target, again, rank)
    return _finish(outcome, *outputs, quiet=quiet)


def _finish(
    outcome: Outcome, certificate: Path | None, report: Path | None, *, quiet: bool
) -> dict[str, Any]:
    """Sign the certificate, write it and the report, and print the result."""
    now = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")  # noqa: TID251 - date of the certificate
    body = certificates.certificate(outcome, now=now, version=karez.__version__)
    signed = signed_certificate.sign(body, state_folder() / "migration.key")
    write_page(certificate, json.dumps(signed, indent=1) + "\n", "certificate")
    write_page(report, certificates.page(signed, outcome))
    if not quiet:
        _print_result(signed, outcome)
    return signed


def _runners(options: VerifyOptions) -> dict[str, Runner]:
    sides = {"target": options.on, "reference": options.reference_on}
    needs = {side: need for side, need in sides.items() if need and remote_verify.kind_of(need)}
    if not needs:
        return {}
    cloud = client()
    return {
        side: remote_verify.OnPool(client=cloud, need=need, project=options.project, say=_notice)
        for side, need in needs.items()
    }


def _target(options: VerifyOptions) -> str:
    if options.target or not options.on:
        return options.target or "emulated"
    return remote_verify.target_on(client(), options.on)


def _reference(options: VerifyOptions) -> str:
    if options.reference or not options.reference_on:
        return options.reference or "cpu"
    return remote_verify.REFERENCES[remote_verify.kind_of(options.reference_on)]


def _notice(line: str) -> None:
    say(line, err=True)


def _print_result(signed: dict[str, Any], outcome: Outcome) -> None:
    compared, verdict = signed["compared"], outcome.verdict
    say(
        f"{compared['modules_forward']} forward, {compared['modules_backward']} backward, "
        f"{compared['optimizer_states']} optimizer states, {compared['gradients']} gradients of "
        f"modules, {compared['losses']} losses"
    )
    worst = verdict.worst
    if worst is not None:
        say(f"largest difference {worst.error:.2e} of {worst.limit:.2e}: {worst.name}")
    if compared["losses"]:
        say(f"losses differ by {verdict.loss_error:.2e} (allowed {verdict.loss_limit:.2e})")
    first = signed["first_difference"]
    if first:
        say(f"first difference at {_describe(first)}")
    for line in verdict.settings[:5]:
        say(f"another setting: {line}")
    for line in verdict.unmatched[:5]:
        say(f"only in one of them: {line}")
    say("lossless" if signed["lossless"] else "NOT lossless")


def _describe(difference: dict[str, Any]) -> str:
    """Name the module, step, operator and size of a difference."""
    operator = f", in {difference['operator']}" if difference["operator"] else ""
    return (
        f"{difference['name']} ({difference['type']}), {difference['kind']}, step "
        f"{difference['step'] + 1}{operator}: "
        f"{difference['problem'] or format(difference['error'], '.2e')}"
    )
