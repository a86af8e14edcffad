"""Notebooks: all code cells as one file, and the edits put back into the cells they belong to."""

import json
import re
from dataclasses import replace
from typing import Any

from karez.migration.examine import Asked, apply, examine
from karez.migration.findings import Edit, FileReport, Finding, Kind

_MAGIC = re.compile(r"^([ \t]*)[%!?]", re.MULTILINE)
_BODY = 1
"""Cells are told apart by an empty line, so that a cell's last line needs no end."""


def examine_notebook(path: str, text: str, asked: Asked = Asked()) -> FileReport:
    """Findings of the code cells; columns and lines count within the cell that is named."""
    cells = _cells(text)
    if cells is None:
        return FileReport(path=path, error="it is no notebook in JSON")
    joined, starts = _join(cells)
    report = examine(path, joined, asked)
    report.findings = [_placed(one, joined, starts) for one in report.findings]
    if not _is_written_alike(text):
        report.findings = [_by_hand(one) for one in report.findings]
    return report


def rewrite_notebook(text: str, edits: tuple[Edit, ...], lines: str) -> str:
    """The notebook with edits made, and `lines` before the first of them."""
    document = json.loads(text)
    cells = [cell for cell in document["cells"] if cell.get("cell_type") == "code"]
    joined, starts = _join(["".join(cell["source"]) for cell in cells])
    for number, cell in enumerate(cells):
        start = starts[number]
        end = starts[number + 1] - _BODY if number + 1 < len(starts) else len(joined)
        mine = [
            replace(edit, start=edit.start - start, end=edit.end - start)
            for edit in edits
            if start <= edit.start <= end
        ]
        body = "".join(cell["source"])
        if lines and mine:
            at = _place(body, min(edit.start for edit in mine))
            gap = "" if not body[:at] or body[:at].endswith("\n") else "\n"
            mine.append(Edit(start=at, end=at, text=gap + lines))
            lines = ""
        body = apply(body, mine)
        is_list = isinstance(cell["source"], list)
        cell["source"] = body.splitlines(keepends=True) if is_list else body
    return _dump(document, text)


def _place(body: str, first_use: int) -> int:
    """Where the import goes in a cell: behind one of torch that comes before its first use."""
    found = [
        match.end()
        for match in re.finditer(r"^(import|from)\s+torch\b[^\n]*\n?", body, re.MULTILINE)
        if match.end() <= first_use
    ]
    return found[-1] if found else body.rfind("\n", 0, first_use) + 1


def _cells(text: str) -> list[str] | None:
    try:
        document: Any = json.loads(text)
        cells = document["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError):
        return None


def _join(cells: list[str]) -> tuple[str, list[int]]:
    """One text of the same length as the cells, with an end of line behind each; magics hidden."""
    starts, parts, at = [], [], 0
    for cell in cells:
        starts.append(at)
        is_other = cell.lstrip().startswith("%%")
        body = re.sub(r"[^\n]", "#", cell) if is_other else _MAGIC.sub(r"\1#", cell)
        parts.append(body + "\n")
        at += len(body) + _BODY
    return "".join(parts), starts


def _placed(finding: Finding, joined: str, starts: list[int]) -> Finding:
    offset = sum(len(row) + 1 for row in joined.split("\n")[: finding.line - 1])
    cell = max(n for n, start in enumerate(starts) if start <= offset)
    line = finding.line - joined.count("\n", 0, starts[cell])
    return replace(finding, path=f"{finding.path}#cell-{cell + 1}", line=line)


def _by_hand(finding: Finding) -> Finding:
    if finding.kind != Kind.AUTOMATIC:
        return finding
    return replace(
        finding, kind=Kind.ASSISTED, edits=(), needs=frozenset(),
        question="The notebook's JSON has a form of its own: make this change in an editor.",
    )  # fmt: skip


def _dump(document: Any, like: str) -> str:
    indent = re.search(r"\n( +|\t+)\"", like)
    step: int | str = 1
    if indent:
        step = len(indent.group(1)) if indent.group(1).startswith(" ") else indent.group(1)
    ends = "\n" if like.endswith("\n") else ""
    is_ascii = "\\u" in like
    return json.dumps(document, indent=step, ensure_ascii=is_ascii) + ends


def _is_written_alike(text: str) -> bool:
    """Whether the file comes out as it went in when nothing is changed."""
    return _dump(json.loads(text), text) == text
