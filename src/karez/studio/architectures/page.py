"""The matrix as one HTML page that needs nothing from outside. Pure."""

from collections.abc import Iterable

from karez.studio.architectures.rows import (
    COLUMNS,
    MEANING,
    Check,
    Matrix,
    Row,
    counts,
    nearest_green,
)
from karez.studio.html_page import escaped, page

_CLASSES = {"yes": "yes", "no": "no", "-": "none", "?": "none"}


def as_html(matrix: Matrix) -> str:
    """Write the matrix as a page: sums by family, then a row for each architecture."""
    green = sum(row.is_green for row in matrix.rows)
    versions = ", ".join(f"{name} {number}" for name, number in matrix.versions.items())
    parts = [
        "<h1>Architectures that karez trains and serves</h1>",
        f"<p><b>{green} of {len(matrix.rows)}</b> architectures train at tiny size, on the host "
        f"and on the emulated NPU; transformers knows {matrix.known} that could be tried. Seen on "
        f"{escaped(matrix.date)} with {escaped(versions)}. The weights are random: this shows that "
        "the code of each architecture works, and nothing about what a large model knows.</p>",
        _legend(),
        "<h2>By family</h2>",
        _families(matrix),
        "<h2>By architecture</h2>",
        '<p><label>Find: <input id="filter" placeholder="part of a name or of a reason"></label>'
        "</p>",
        _architectures(matrix),
    ]
    return page("Architectures", parts, has_filter=True)


def _legend() -> str:
    rows = "".join(
        f"<tr><td><b>{check}</b></td><td>{escaped(MEANING[check])}</td></tr>" for check in COLUMNS
    )
    return (
        f"<details><summary>What each column means</summary><table>{rows}</table>"
        '<p class="note">"-": the architecture has no such thing. "?": not reached, since an '
        "earlier check failed.</p></details>"
    )


def _families(matrix: Matrix) -> str:
    body = []
    for name in matrix.families:
        rows = [row for row in matrix.rows if row.family == name]
        body.append(_sums(name, rows))
    return (
        f"<table><thead>{_heads('family', 'tried')}</thead><tbody>{''.join(body)}"
        f"{_sums('all', matrix.rows)}</tbody></table>"
    )


def _sums(name: str, rows: Iterable[Row]) -> str:
    listed = list(rows)
    found = counts(listed)
    cells = "".join(f'<td class="n">{found[check]}</td>' for check in COLUMNS)
    return f'<tr><td>{escaped(name)}</td><td class="n">{len(listed)}</td>{cells}</tr>'


def _architectures(matrix: Matrix) -> str:
    body = "".join(_row(row, matrix) for row in matrix.rows)
    return (
        f"<table><thead>{_heads('type', 'family')}</thead>"
        f'<tbody class="found">{body}</tbody></table>'
    )


def _row(row: Row, matrix: Matrix) -> str:
    cells = "".join(_cell(row, check) for check in COLUMNS)
    words = " ".join((row.model_type, row.family, row.architecture, *row.failures.values()))
    why = "".join(
        f'<br><span class="note">{check}: {escaped(text)}</span>'
        for check, text in row.failures.items()
    )
    near = "" if row.is_green else nearest_green(row, matrix.rows)
    like = f'<br><span class="note">nearest that works: {escaped(near)}</span>' if near else ""
    return (
        f'<tr data-words="{escaped(words.lower())}"><td><b>{escaped(row.model_type)}</b> '
        f'<span class="note">{escaped(row.architecture)}</span>{why}{like}</td>'
        f"<td>{escaped(row.family)}</td>{cells}</tr>"
    )


def _cell(row: Row, check: Check) -> str:
    mark = row.mark(check)
    return f'<td class="{_CLASSES[mark]}">{mark}</td>'


def _heads(*first: str) -> str:
    return (
        "<tr>" + "".join(f"<th>{escaped(str(name))}</th>" for name in (*first, *COLUMNS)) + "</tr>"
    )
