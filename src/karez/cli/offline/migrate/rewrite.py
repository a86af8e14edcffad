"""`karez migrate rewrite`: replace CUDA-bound constructs in the source."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from karez.cli.client_options import Json
from karez.cli.offline.migrate.scan_output import plan_json, show_plan
from karez.cli.options import takes
from karez.cli.terminal import say
from karez.core.errors import BadRequest

if TYPE_CHECKING:  # keeps --help fast
    from karez.migration.changes import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteOptions:
    """Options of `karez migrate rewrite`."""

    root: Annotated[Path, typer.Argument(help="Folder or file to rewrite.")]
    target: Annotated[
        str, typer.Option(help="API to rewrite to. agnostic: torch.accelerator; npu: torch.npu.")
    ] = "agnostic"
    diff: Annotated[bool, typer.Option("--diff", help="Print the changes as a diff (default).")] = (
        False
    )
    in_place: Annotated[bool, typer.Option("--in-place", help="Write the changed files.")] = False
    branch: Annotated[
        str, typer.Option(help="Write the files and commit them on a new git branch of this name.")
    ] = ""
    assisted: Annotated[
        bool, typer.Option("--assisted", help="Also rewrite constructs that need an answer.")
    ] = False
    dirty: Annotated[
        bool, typer.Option("--dirty", help="Write files despite uncommitted changes.")
    ] = False
    force: Annotated[
        bool, typer.Option("--force", help="Rewrite although the scan advises against it.")
    ] = False

    @property
    def writes(self) -> bool:
        """Whether files are written."""
        return self.in_place or bool(self.branch)


@takes(RewriteOptions)
def rewrite_command(options: RewriteOptions, as_json: Json = False) -> None:
    """Rewrite CUDA-bound constructs without a change of behaviour on CUDA or on a CPU.

    Everything is planned, compiled and scanned again before the first file is written, and each
    file is replaced atomically. A comment `# karez: keep` leaves a line alone. A second run changes
    nothing.

    Example: karez migrate rewrite . --branch npu
    """
    planned = _carry_out(options)
    if as_json:
        shown = plan_json(planned, list(planned.left), written=options.writes)
        say(json.dumps(shown, indent=1))
        return
    if options.diff or not options.writes:
        for change in planned.changes:
            say(change.diff(), nl=False)
    show_plan(planned, options.root, written=options.writes)


def _carry_out(options: RewriteOptions) -> "Plan":
    """Plan the changes, and write and commit them as the options say. Raises BadRequest."""
    from karez.migration import (  # noqa: PLC0415 - keeps --help fast
        file_writer,
        rewrite,
        working_tree,
    )
    from karez.migration.findings import Target  # noqa: PLC0415 - keeps --help fast

    root = options.root
    if options.target not in tuple(Target):
        raise BadRequest(problem=f"--target is agnostic or npu, not {options.target!r}")
    is_safe = options.dirty or not options.writes or working_tree.check_clean(root)
    planned = rewrite.plan(
        root, target=Target(options.target), assisted=options.assisted, force=options.force
    )
    if options.branch:
        working_tree.switch_to(root, options.branch)
    if not is_safe and planned.changes:
        patch = working_tree.write_patch(root, planned.changes)
        say(
            f"{root} is not under git; there, `patch -R -p1 < {patch.name}` takes this back",
            err=True,
        )
    if options.writes:
        file_writer.write(root, planned.changes)
    if options.branch and planned.changes:
        working_tree.commit(
            root, planned.changes, "Move from CUDA to any accelerator (karez migrate)"
        )
    return planned
