"""Analyzes and rewrites notebooks: all code cells count as one file of Python."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from karez.migration.analyze import ScanOptions, apply, examine
from karez.migration.findings import Edit, FileReport, Finding

_MAGIC = re.compile(r"^([ \t]*)[%!?]", re.MULTILINE)
_DECODER = json.JSONDecoder()
_BODY = 1
"""Characters between two joined cells: one line end."""


def examine_notebook(path: str, text: str, options: ScanOptions = ScanOptions()) -> FileReport:
    """Return the findings of the code cells; lines and columns count within each cell."""
    cells = _cells(text)
    if cells is None:
        return FileReport(path=path, error="invalid notebook: not JSON with cells")
    joined, starts = _join(cells)
    report = examine(path, joined, options)
    report.findings = [_placed(one, joined, starts) for one in report.findings]
    return report


def rewrite_notebook(text: str, edits: tuple[Edit, ...], lines: str) -> str:
    """Return the notebook with edits applied and `lines` inserted before the first edit.

    Only sources that change are written again, in their old format: everything else stays the
    same, byte for byte.
    """
    spans = _sources(text)
    bodies = ["".join(json.loads(text[start:end])) for start, end in spans]
    joined, starts = _join(bodies)
    made = text
    places = []
    for number, body in enumerate(bodies):
        start = starts[number]
        end = starts[number + 1] - _BODY if number + 1 < len(starts) else len(joined)
        mine = [
            replace(edit, start=edit.start - start, end=edit.end - start)
            for edit in edits
            if start <= edit.start <= end
        ]
        if lines and mine:
            at = _place(body, min(edit.start for edit in mine))
            gap = "" if not body[:at] or body[:at].endswith("\n") else "\n"
            mine.append(Edit(start=at, end=at, text=gap + lines))
            lines = ""
        if mine:
            places.append((spans[number], apply(body, mine)))
    for (start, end), body in reversed(places):
        made = made[:start] + _written(body, text[start:end]) + made[end:]
    return made


def _written(body: str, like: str) -> str:
    """The source of a cell as JSON, with the lists and escapes of the old JSON."""
    is_ascii = "\\u" in like or like.isascii()
    if not like.startswith("["):
        return json.dumps(body, ensure_ascii=is_ascii)
    first = _blank(like, 1)
    before, after = like[1:first], ""
    between = f",{before or ' '}"
    if like[first] != "]":
        _, end = _DECODER.raw_decode(like, first)
        comma = _blank(like, end)
        if like[comma] == ",":
            between = like[end : _blank(like, comma + 1)]
        after = like[len(like[:-1].rstrip()) : -1]
    items = [json.dumps(row, ensure_ascii=is_ascii) for row in body.splitlines(keepends=True)]
    return "[" + before + between.join(items) + after + "]"


def _sources(text: str) -> list[tuple[int, int]]:
    """Spans of the sources of code cells in the file. Raises ValueError or KeyError."""
    found: list[tuple[int, int]] = []
    cells = dict(_members(text, _blank(text, 0)))["cells"]
    at = _blank(text, cells[0] + 1)
    while text[at] != "]":
        _, end = _DECODER.raw_decode(text, at)
        parts = dict(_members(text, at))
        start, stop = parts["cell_type"]
        if json.loads(text[start:stop]) == "code":
            found.append(parts["source"])
        at = _blank(text, end)
        at = _blank(text, at + 1) if text[at] == "," else at
    return found


def _members(text: str, at: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Members of the JSON object at an offset, each with the span of its value."""
    at = _blank(text, at + 1)
    while text[at] == '"':
        key, at = _DECODER.raw_decode(text, at)
        start = _blank(text, _blank(text, at) + 1)
        _, end = _DECODER.raw_decode(text, start)
        yield str(key), (start, end)
        at = _blank(text, end)
        at = _blank(text, at + 1) if text[at] == "," else at


def _blank(text: str, at: int) -> int:
    """Offset of the next character that is not white space."""
    while text[at] in " \t\r\n":
        at += 1
    return at


def _place(body: str, first_use: int) -> int:
    """Offset for the import in a cell: after an import of torch that precedes the first use."""
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
    """Join the cells to one text, with a line end after each; magics become comments."""
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
