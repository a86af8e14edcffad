"""Rewrites the text of one file, adds imports, and checks the result."""

import re
from collections.abc import Sequence
from dataclasses import replace

from karez.migration.analyze import ScanOptions, apply, examine
from karez.migration.changes import Change
from karez.migration.findings import Edit, FileReport, Finding, Kind, Target
from karez.migration.import_layout import Home, Layout, place_of_import
from karez.migration.notebooks import examine_notebook, rewrite_notebook
from karez.migration.text_files import examine_text

_BOM = "\ufeff"


def rewrite_file(
    path: str, text: str, layout: Layout, options: ScanOptions, *, assisted: bool
) -> tuple[Change | None, list[Finding], Home | None]:
    """Return the change of a file, the findings that the change resolves, and the import's home.

    Args:
        path: Relative to the repository, with slashes.
        text: What the file contains.
        layout: Where files of the repository find the generated module.
        options: Target and own modules; the module to import from is added here.
        assisted: Also make edits that a person should confirm.

    Raises:
        ValueError: The result would be wrong.
        SyntaxError: The result cannot be compiled.
    """
    wanted = (Kind.AUTOMATIC, Kind.ASSISTED) if assisted else (Kind.AUTOMATIC,)
    if not path.endswith((".py", ".pyi", ".ipynb")):
        made = _selected(examine_text(path, text), wanted)
        after = apply(text, _edits(made))
        return (Change(path=path, before=text, after=after) if made else None), made, None
    bom = _BOM if text.startswith(_BOM) else ""
    body = text.removeprefix(_BOM)
    home = layout.home(path, body)
    options = replace(options, module=home.module, fallback=home.fallback)
    is_notebook = path.endswith(".ipynb")
    file = (examine_notebook if is_notebook else examine)(path, body, options)
    made = _selected(file, wanted)
    if not made:
        return None, [], None
    if is_notebook:
        lines = _imports(file, made, home, options.target, body)
        after = rewrite_notebook(body, tuple(_edits(made)), lines)
    else:
        after = _with_imports(apply(body, _edits(made)), file, made, home, options.target)
        _check(path, after, options)
    return Change(path=path, before=text, after=bom + after), made, home


def _selected(file: FileReport, kinds: Sequence[Kind]) -> list[Finding]:
    return [finding for finding in file.findings if finding.kind in kinds and finding.edits]


def _edits(made: Sequence[Finding]) -> list[Edit]:
    return [edit for finding in made for edit in finding.edits]


def _imports(
    file: FileReport, made: Sequence[Finding], home: Home, target: Target, before: str
) -> str:
    """The import statements that the edits need and the file lacks."""
    if target == Target.NPU:
        lacks = not re.search(r"^\s*import torch_npu\b", before, re.MULTILINE)
        return "import torch_npu  # noqa: F401\n" if lacks and any(m.needs for m in made) else ""
    uses = any(f"{file.shim}." in edit.text for edit in _edits(made))
    lines = home.lines(file.shim)
    is_there = re.search(rf"^\s*{re.escape(lines.rstrip())}\s*$", before, re.MULTILINE)
    return lines if uses and not is_there else ""


def _with_imports(
    after: str, file: FileReport, made: Sequence[Finding], home: Home, target: Target
) -> str:
    lines = _imports(file, made, home, target, after)
    if not lines:
        return after
    at = place_of_import(after, after.find(f"{file.shim}.") if target != Target.NPU else None)
    end = "\r\n" if "\r\n" in after else "\n"
    gap = "" if not after[:at] or after[:at].endswith("\n") else end
    return after[:at] + gap + lines.replace("\n", end) + after[at:]


def _check(path: str, after: str, options: ScanOptions) -> None:
    """Compile and examine a result once more. Raises ValueError or SyntaxError."""
    compile(after, path, "exec", dont_inherit=True)
    report = examine(path, after, options)
    rest = _selected(report, (Kind.AUTOMATIC,))
    if report.error:
        raise ValueError(f"the result cannot be read: {report.error}")
    if rest and not report.is_portable:
        raise ValueError(f"line {rest[0].line}: {rest[0].rule} would be rewritten twice")
