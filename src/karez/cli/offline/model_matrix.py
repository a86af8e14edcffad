"""`karez models matrix` and `karez models check`: which architectures work."""

import difflib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import Json
from karez.cli.command_clock import today
from karez.cli.offline.progress import bar, write_page
from karez.cli.options import takes
from karez.cli.output import json_out, table
from karez.cli.terminal import inherited, say
from karez.client.model_folder import check_known, read_model_folder
from karez.core.errors import BadRequest
from karez.core.units import show_bytes
from karez.studio.architectures.kept_rows import KeptRows
from karez.studio.architectures.page import as_html
from karez.studio.architectures.parallel import Trial
from karez.studio.architectures.rows import (
    COLUMNS,
    MEANING,
    Check,
    Matrix,
    Row,
    as_tree,
    counts,
    dump,
    load,
    nearest_green,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixOptions:
    """Options of `karez models matrix`."""

    types: Annotated[
        list[str] | None, typer.Argument(help="Model types, such as llama. Default: all.")
    ] = None
    family: Annotated[str, typer.Option(help="List this family, such as causal-lm.")] = ""
    failed: Annotated[bool, typer.Option("--failed", help="List what failed, and why.")] = False
    run: Annotated[
        bool, typer.Option("--run", help="Try again, here and now: a second for each.")
    ] = False
    output: Annotated[
        Path | None, typer.Option(help="File for the result of --run; a second run goes on there.")
    ] = None
    processes: Annotated[int, typer.Option(min=1, help="Processes of --run, side by side.")] = 2
    page: Annotated[Path | None, typer.Option(help="Write an HTML page to this file.")] = None
    as_json: Json = False


@takes(MatrixOptions)
def show_matrix(options: MatrixOptions) -> None:
    """Show which architectures train, recover and run on an NPU, each tried at tiny size."""
    types = options.types or []
    if options.output and not options.run:
        raise BadRequest(problem="--output is the file of a --run", fix="Add --run.")
    whole = _run(types, options.processes, options.output) if options.run else last_matrix()
    matrix = _chosen(whole, types, options.family)
    write_page(options.page, as_html(matrix) if options.page else "", "page")
    if options.as_json:
        json_out(json.loads(dump(matrix)))
        return
    if types or options.family or options.failed:
        _print_rows([row for row in matrix.rows if row.failures or not options.failed], whole)
    else:
        _print_families(matrix)


def check_model(
    model: Annotated[str, typer.Argument(help="Model type such as llama, or a model's folder.")],
    as_json: Json = False,
) -> None:
    """Try one architecture, or the one of a model's folder, whose weights are read too."""
    folder = Path(model).expanduser()
    found = read_model_folder(folder) if folder.is_dir() or "/" in model else None
    types = [] if found else [model]
    with Trial(types, processes=1, env=inherited({}), folder=folder if found else None) as trial:
        installed = trial.installed()
        if found:
            check_known(found, installed.known)
        else:
            _check_types(types, installed.known)
        row = next(iter(trial.rows()))
    if as_json:
        json_out(as_tree(row))
    else:
        if found:
            said = f"{len(found.weight_files)} files, {show_bytes(found.weights_bytes)} of weights"
            say(f"{folder}: {said}")
            if found.own_code:
                say(f"its own code ({', '.join(found.own_code)}) is not run: transformers has one")
        _print_checks(row, last_matrix().rows)
    if row.failures:
        raise typer.Exit(1)


def last_matrix() -> Matrix:
    """Return the matrix that karez comes with. Raises BadRequest."""
    file = files("karez.studio.architectures") / "matrix.json"
    return load(file.read_text(encoding="utf-8"), "matrix.json")


def _run(types: Sequence[str], processes: int, output: Path | None) -> Matrix:
    with Trial([], processes=1, env=inherited({})) as trial:
        installed = trial.installed()
    _check_types(types, installed.known)
    wanted = list(types) or list(installed.known)
    with KeptRows(output, installed) as kept:
        left = [name for name in wanted if name not in kept.rows]
        if len(left) < len(wanted):
            say(f"{len(wanted) - len(left)} were tried before; {len(left)} are left", err=True)
        if left:
            _try(left, processes, kept)
        matrix = Matrix(
            date=today(),
            versions=installed.versions,
            known=len(installed.known),
            rows=tuple(kept.rows[name] for name in wanted),
        )
        kept.finish(dump(matrix))
    return matrix


def _try(types: Sequence[str], processes: int, kept: KeptRows) -> None:
    with (
        Trial(types, processes=min(processes, len(types)), env=inherited({})) as trial,
        bar("trying architectures", len(types)) as show,
    ):
        for count, row in enumerate(trial.rows(), start=1):
            kept.add(row)
            show(count)


def _check_types(types: Sequence[str], known: Collection[str]) -> None:
    for name in types:
        if name not in known:
            near = ", ".join(difflib.get_close_matches(name, known))
            raise BadRequest(
                problem=f"{name!r} is no model type of the installed transformers",
                fix=f"Did you mean {near}?" if near else "`karez models matrix --json` lists all.",
            )


def _chosen(matrix: Matrix, types: Sequence[str], family: str) -> Matrix:
    _check_types(types, [row.model_type for row in matrix.rows])
    if family and family not in matrix.families:
        raise BadRequest(
            problem=f"there is no family {family!r}",
            fix=f"Families are {', '.join(matrix.families)}.",
        )
    rows = [
        row
        for row in matrix.rows
        if (not types or row.model_type in types) and family in ("", row.family)
    ]
    return replace(matrix, rows=tuple(rows))


def _print_families(matrix: Matrix) -> None:
    lines: list[list[object]] = []
    for name in matrix.families:
        rows = [row for row in matrix.rows if row.family == name]
        lines.append([name, len(rows), *counts(rows).values()])
    lines.append(["all", len(matrix.rows), *counts(matrix.rows).values()])
    table(("family", "tried", *map(str, COLUMNS)), lines, empty="nothing was tried")
    green = sum(row.is_green for row in matrix.rows)
    versions = ", ".join(f"{name} {number}" for name, number in matrix.versions.items())
    say(
        f"{green} of {len(matrix.rows)} train on the host and on the emulated NPU, at tiny size "
        f"and with random weights ({matrix.date}, {versions})"
    )


def _print_rows(rows: Sequence[Row], matrix: Matrix) -> None:
    lines = [[row.model_type, row.family, *map(row.mark, COLUMNS)] for row in rows]
    table(("type", "family", *map(str, COLUMNS)), lines, empty="none")
    for row in rows:
        for check, text in row.failures.items():
            say(f"{row.model_type}: {check}: {text}")
        if not row.is_green and (near := nearest_green(row, matrix.rows)):
            say(f"{row.model_type}: nearest that works: {near}")


def _print_checks(row: Row, others: Sequence[Row]) -> None:
    say(f"{row.model_type}: {row.architecture}, {row.parameters:,} parameters when tried")
    lines = [(check, row.outcomes.get(check, "not reached"), MEANING[check]) for check in Check]
    shown = [
        line for line in lines if line[0] is not Check.WEIGHTS or Check.WEIGHTS in row.outcomes
    ]
    table(("check", "outcome", "what it is"), shown, empty="")
    if not row.is_green and (near := nearest_green(row, others)):
        say(f"nearest that works: {near}")
