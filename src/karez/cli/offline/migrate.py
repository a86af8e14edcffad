"""`karez migrate`: from CUDA to NPU, offline: scan, rewrite, verify, convert."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json, ProjectName
from karez.cli.offline.progress import write_page
from karez.cli.offline.scan_output import plan_json, show_plan, show_scan
from karez.cli.offline.versions import versions_command
from karez.cli.output import table
from karez.core.errors import BadRequest

app = typer.Typer(no_args_is_help=True, help="Move a repository from CUDA to NPUs, with proof.")
Place = Annotated[str, typer.Argument(help="A folder, a file, or the address of a git repository.")]


@app.command("scan")
def scan_command(
    place: Place,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write SARIF, for code review.")] = None,
    workers: Annotated[int, typer.Option(help="Processes; 0: one for each core.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """List every construct that is bound to CUDA, and what becomes of each.

    Nothing is changed. A finding is automatic (rewritten by `karez migrate rewrite`), assisted (a
    question has to be answered), manual, or kept, where it works as it is.

    Example: karez migrate scan ~/src/nanoGPT --report nanogpt.html
    """
    from karez.migration import scan  # noqa: PLC0415 - only where it is used
    from karez.migration.reports import (  # noqa: PLC0415 - only where it is used
        html_report,
        json_report,
        sarif_report,
    )

    with _here(place) as root:
        found = scan.scan(root, workers=workers)
    found.root = place
    write_page(report, html_report.as_html(found))
    if sarif is not None:
        sarif.write_text(json.dumps(sarif_report.as_sarif(found), indent=1) + "\n")
    if as_json:
        typer.echo(json.dumps(json_report.as_json(found), indent=1))
    else:
        show_scan(json_report.as_json(found))


@app.command("rewrite")
def rewrite_command(
    root: Annotated[Path, typer.Argument(help="A folder or a file.")],
    target: Annotated[
        str, typer.Option(help="agnostic: torch.accelerator; or npu: torch.npu.")
    ] = "agnostic",
    diff: Annotated[bool, typer.Option("--diff", help="Print the changes; the default.")] = False,
    in_place: Annotated[bool, typer.Option("--in-place", help="Write the files.")] = False,
    branch: Annotated[str, typer.Option(help="Write and commit on a new branch.")] = "",
    assisted: Annotated[
        bool, typer.Option("--assisted", help="Rewrite what needs an answer, too.")
    ] = False,
    dirty: Annotated[bool, typer.Option("--dirty", help="Even with uncommitted changes.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even if the scan advises against it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Rewrite what can be rewritten without a change of behaviour on CUDA or on a CPU.

    Everything is planned, compiled and examined again before the first file is written, and each
    file is replaced at once. A comment `# karez: keep` leaves a line alone. A second run changes
    nothing.

    Example: karez migrate rewrite . --branch npu
    """
    from karez.migration import (  # noqa: PLC0415 - only where it is used
        file_writer,
        rewrite,
        working_tree,
    )
    from karez.migration.findings import Target  # noqa: PLC0415 - as above

    if target not in tuple(Target):
        raise BadRequest(problem=f"--target is agnostic or npu, not {target!r}")
    writes = in_place or bool(branch)
    if writes and not dirty:
        working_tree.check_clean(root)
    planned = rewrite.plan(root, target=Target(target), assisted=assisted, force=force)
    if branch:
        working_tree.switch_to(root, branch)
    if writes:
        file_writer.write(root, planned.changes)
    if branch and planned.changes:
        working_tree.commit(
            root, planned.changes, "Move from CUDA to any accelerator (karez migrate)"
        )
    if as_json:
        typer.echo(json.dumps(plan_json(planned, list(planned.left), written=writes), indent=1))
        return
    if diff or not writes:
        for change in planned.changes:
            typer.echo(change.diff(), nl=False)
    show_plan(planned, root, written=writes)


@app.command("verify", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def verify_command(
    context: typer.Context,
    original: Annotated[Path, typer.Argument(help="The folder before.")],
    migrated: Annotated[Path, typer.Argument(help="The folder after.")],
    reference: Annotated[
        str, typer.Option(help="cpu, cuda, migrated (on the CPU), or the folder of a record.")
    ] = "",
    target: Annotated[str, typer.Option(help="emulated, npu, cuda or cpu.")] = "",
    on: Annotated[str, typer.Option(help="The target as a job on the pool, such as npu:1.")] = "",
    reference_on: Annotated[str, typer.Option(help="The reference as one, such as gpu:1.")] = "",
    ranks: Annotated[int, typer.Option(help="Processes, by torchrun.", min=1, max=64)] = 1,
    project: ProjectName = "default",
    reference_args: Annotated[
        str, typer.Option(help="Further arguments of the reference, as one text.")
    ] = "",
    steps: Annotated[int, typer.Option(help="Steps recorded in detail.", min=1, max=100)] = 3,
    most: Annotated[int, typer.Option(help="End after so many steps; 0: never.", min=0)] = 0,
    kernels: Annotated[
        Path | None, typer.Option(help="Strict: only the operators listed in this file exist.")
    ] = None,
    chip: Annotated[
        str, typer.Option(help="Strict: A2, A3 or 950DT as documented, types too.")
    ] = "",
    fault: Annotated[
        str, typer.Option(help="Spoil a module of the migrated run, as NAME=SHARE, as a test.")
    ] = "",
    certificate: Annotated[Path | None, typer.Option(help="Write the signed certificate.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep both records in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Run a script before and after side by side, and say where they part.

    Both get the same seeds. Every module's inputs, outputs and gradients, every optimizer's state
    and all losses are compared, each within what its type and the reference's own spread allow.
    Ends with code 1 if something differs by more.

    With --on the migrated script runs as a job on a cloud's pool, and its record is fetched; no
    cloud is needed otherwise.

    Example: karez migrate verify nanoGPT nanoGPT-npu --most 20 -- train.py --compile=False
    """
    from karez.cli.offline import verify  # noqa: PLC0415 - only where it is used

    asked = verify.VerifyRequest(
        original=original,
        migrated=migrated,
        words=context.args,
        reference=reference,
        target=target,
        reference_args=reference_args,
        steps=steps,
        most=most,
        kernels=kernels,
        fault=fault,
        certificate=certificate,
        report=report,
        keep=keep,
        on=on,
        reference_on=reference_on,
        project=project,
        ranks=ranks,
        chip=chip,
    )
    signed = verify.run_verify(asked, quiet=as_json)
    _end(signed, as_json=as_json)


@app.command("compare")
def compare_command(
    reference: Annotated[Path, typer.Argument(help="A record, or a dump of msprobe.")],
    target: Annotated[Path, typer.Argument(help="Another, which is judged.")],
    again: Annotated[
        Path | None, typer.Option(help="A second one of the reference, for its own spread.")
    ] = None,
    rank: Annotated[int, typer.Option(help="Which process's.", min=0)] = 0,
    certificate: Annotated[Path | None, typer.Option(help="Write the signed certificate.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page.")] = None,
    as_json: Json = False,
) -> None:
    """Judge one record by another, without running anything.

    A record is a folder under --keep of `karez migrate verify`, or what msprobe dumped on a GPU or
    an NPU (modules, functions or both; tensors, statistics or checksums). Ends with code 1 if
    something differs by more than its type allows.

    Example: karez migrate compare dumps-of-the-gpu dumps-of-the-npu --report compared.html
    """
    from karez.cli.offline import verify  # noqa: PLC0415 - only where it is used

    signed = verify.compare(reference, target, again, rank, (certificate, report), quiet=as_json)
    _end(signed, as_json=as_json)


@app.command("check")
def check_command(
    certificate: Annotated[Path, typer.Argument(help="A certificate.")],
    key: Annotated[str, typer.Option(help="The public key it must be of, in hexadecimal.")] = "",
) -> None:
    """Say whether a certificate is as it was signed, offline.

    Example: karez migrate check nanogpt.certificate.json
    """
    from karez.cli.offline import verify  # noqa: PLC0415 - only where it is used

    typer.echo(verify.check(certificate, key))


@app.command("checkpoint")
def checkpoint_command(
    source: Annotated[Path, typer.Argument(help="A file, or a folder of shards.")],
    target: Annotated[Path, typer.Argument(help="A file; a folder for sharded safetensors.")],
    to: Annotated[str, typer.Option(help="torch, safetensors, mindspore or gguf.")] = "",
    rules: Annotated[Path | None, typer.Option(help="A TOML file with rules for names.")] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="MODULE=norm|embedding|prelu|conv1d|same, for MindSpore's own names."),
    ] = None,
    mindspore_names: Annotated[
        bool, typer.Option("--mindspore-names", help="Norms as mindspore.nn calls them.")
    ] = False,
    shard_mb: Annotated[int, typer.Option(help="MB in one safetensors file.", min=1)] = 5000,
    like: Annotated[
        Path | None, typer.Option(help="GGUF: a Hugging Face folder with config and tokenizer.")
    ] = None,
    outtype: Annotated[str, typer.Option(help="GGUF: q8_0, f16, bf16 or f32.")] = "f16",
    converter: Annotated[str, typer.Option(help="GGUF: the converter's wheel, offline.")] = "",
    as_json: Json = False,
) -> None:
    """Turn a checkpoint of PyTorch, safetensors or MindSpore into another, bit for bit.

    Neither framework is needed. A pickle is read without running anything in it. What no rule knows
    keeps its name and is listed. GGUF, for the edge, is made by llama.cpp's converter and kept only
    if a golden prompt is answered as by the source.

    Example: karez migrate checkpoint model.pt model.ckpt --mindspore-names
    """
    from karez.checkpoints.convert import Order, convert  # noqa: PLC0415 - only here

    kinds: dict[str, str] | None = {} if mindspore_names or kind else None
    for word in kind or []:
        module, found, what = word.partition("=")
        if not found or kinds is None:
            raise BadRequest(problem=f"--kind {word!r} should read like encoder.embed=embedding")
        kinds[module] = what
    order = Order(
        source=source,
        target=target,
        to=to,
        rules=rules,
        kinds=kinds,
        shard_bytes=shard_mb * 1_000_000,
    )
    if to == "gguf" or target.suffix == ".gguf":
        from karez.cli.offline.gguf_export import export  # noqa: PLC0415 - only where it is used

        done = export(order, like, outtype, converter)
    else:
        done = convert(order)
    if as_json:
        typer.echo(json.dumps(done, indent=1))
        return
    count = f"{done['tensors']} tensors, " if "tensors" in done else ""
    typer.echo(f"{count}{done['bytes'] / 1e6:.1f} MB: {done['files'][0]}")
    for what in ("dropped", "unmatched", "left_out"):
        if done[what]:
            shown = ", ".join(done[what][:10])
            typer.echo(f"{what.replace('_', ' ')}: {len(done[what])}: {shown}", err=True)


@app.command("advise")
def advise_command(
    root: Annotated[Path, typer.Argument(help="A folder or a file.")],
    profile: Annotated[
        Path | None, typer.Option(help="What torch_npu's profiler wrote: ..._ascend_pt.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what would be slow on an NPU by the source, and what was by a profile.

    Example: karez migrate advise ~/src/nanoGPT --profile prof/host_1_ascend_pt
    """
    from karez.tuning import advice  # noqa: PLC0415 - only where it is used
    from karez.tuning import profile_analysis as profiles  # noqa: PLC0415 - as above

    found = advice.advise(root)
    slow = profiles.look(profile) if profile is not None else []
    if as_json:
        both = {"source": [asdict(one) for one in found], "profile": [asdict(one) for one in slow]}
        typer.echo(json.dumps(both, indent=1))
        return
    if profile is not None:
        table(
            ("measured", "what", "times", "ms", "share", "what to do", "source"),
            [
                (
                    one.rule,
                    one.what,
                    one.count,
                    f"{one.time_us / 1000:.1f}",
                    f"{100 * one.share:.0f}%" if one.share else "",
                    one.reason,
                    one.source,
                )
                for one in slow
            ],
            empty="nothing in the profile stands out",
        )
    rows = [(f"{one.path}:{one.line}", one.rule, one.reason, one.source) for one in found]
    table(("place", "rule", "reason", "source"), rows, empty="nothing comes to mind")
    if rows or slow:
        typer.echo(
            "Sources: rules of msprof-analyze's advisor, Ascend's documentation, what migrations "
            "met. Measure on the device before and after changing anything.",
            err=True,
        )


@app.command("rules")
def rules_command(as_json: Json = False) -> None:
    """The catalogue: every rule, its class and its reason.

    Example: karez migrate rules --json
    """
    from karez.migration.rules.catalogue import CATALOGUE  # noqa: PLC0415 - only where it is used

    rows = [(rule.id(), rule.kind.value, rule.reason()) for rule in CATALOGUE]
    if as_json:
        keys = ("rule", "kind", "reason")
        typer.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=1))
    else:
        table(("rule", "class", "reason"), rows, empty="")


def _end(signed: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(signed, indent=1))
    if not signed["lossless"]:
        raise typer.Exit(1)


@contextmanager
def _here(place: str) -> Iterator[Path]:
    """A folder, or a fresh copy of a git repository for as long as it is looked at."""
    if "://" not in place and not place.startswith("git@"):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="kz-") as folder:
        words = ["git", "clone", "--quiet", "--depth", "1", place, f"{folder}/repository"]
        try:
            done = subprocess.run(  # noqa: S603 - git, with the address that was given
                words, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise BadRequest(problem="git is not installed", fix="Clone it elsewhere.") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no reason"]
            said = next((line for line in lines if line.startswith("fatal:")), lines[-1])
            raise BadRequest(
                problem=f"{place} could not be cloned: {said}",
                fix="Without a network, clone it elsewhere and name the folder.",
            )
        yield Path(folder, "repository")


app.command("versions")(versions_command)
APPS = {"migrate": app}
