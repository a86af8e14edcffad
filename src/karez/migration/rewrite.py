"""Plans the rewrite of a repository; every change is checked before a file is written.

Each changed file has been compiled and examined once more: what still names CUDA is in the report,
and a second run changes nothing.
"""

import ast
import contextlib
from pathlib import Path

from karez.core.errors import BadRequest
from karez.migration import shim
from karez.migration.analyze import GENERATED, ScanOptions
from karez.migration.changes import Change, Plan
from karez.migration.file_rewrite import rewrite_file
from karez.migration.findings import Target
from karez.migration.import_layout import Layout, own_modules
from karez.migration.repo_report import RepoReport
from karez.migration.scan import read, scan

_ATTRIBUTES = frozenset(("type", "accelerator", "backend", "accelerator_backend"))
"""Names that every generated module computes on access."""


def plan(root: Path, *, target: Target, assisted: bool = False, force: bool = False) -> Plan:
    """Work out all changes of a folder; nothing is written.

    Raises:
        BadRequest: The folder is missing, or the scan refuses it and `force` is false.
    """
    report = scan(root, ScanOptions(target=target))
    if report.refusal and not force:
        raise BadRequest(
            problem=f"{root} is not rewritten: {report.refusal}",
            fix="Read the scan's report first; --force rewrites what can be rewritten.",
        )
    base = root if root.is_dir() else root.parent
    planned = Plan(report=report)
    options = ScanOptions(target=target, own=own_modules(report.paths), facts=report.facts)
    used = _plan_files(planned, base, options, assisted=assisted)
    union = set().union(*used.values())  # the module that is imported first serves all files
    planned.changes += _shims(base, dict.fromkeys(used, union))
    return planned


def _plan_files(
    planned: Plan, base: Path, options: ScanOptions, *, assisted: bool
) -> dict[str, set[str]]:
    """Add the changes of all files; returns generated module -> names that files use of it."""
    layout = _layout(base, planned.report)
    used: dict[str, set[str]] = {}
    for file in planned.report.files:
        if not any(finding.edits for finding in file.findings):
            continue
        text = read(base / file.path)
        try:
            change, made, home = rewrite_file(file.path, text, layout, options, assisted=assisted)
        except (ValueError, SyntaxError) as error:
            planned.failed.append((file.path, str(error)))
            continue
        planned.made += made
        if change is None:
            continue
        planned.changes.append(change)
        names = {name for finding in made for name in finding.needs} - {"torch_npu"}
        if home is not None and names:
            used.setdefault(home.file, set()).update(names)
    return used


def _layout(base: Path, report: RepoReport) -> Layout:
    layout = Layout(report.paths)
    for path in report.paths:
        with contextlib.suppress(OSError, ValueError):
            layout.note(path, read(base / path))
    return layout


def _shims(base: Path, used: dict[str, set[str]]) -> list[Change]:
    """Changes for the generated modules; names that an earlier one offers are kept."""
    changes: list[Change] = []
    for path, names in sorted(used.items()):
        before = None
        if (base / path).exists():
            before = read(base / path)
            if not before.startswith(GENERATED):
                raise BadRequest(
                    problem=f"{path} is there already, and was not generated",
                    fix="Rename it; the generated module needs this name.",
                )
            if names <= shim.used_of(before) | _ATTRIBUTES:
                continue  # it offers every name that is used; the owner may have edited it
        after = shim.write_shim(names | (shim.used_of(before) if before else frozenset()))
        ast.parse(after)
        changes.append(Change(path=path, before=before, after=after))
    return changes
