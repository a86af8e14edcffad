"""The matrix as one HTML page that needs nothing from outside. Pure."""

import html
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

_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
td,th{padding:.25rem .5rem;border-bottom:1px solid #8884;text-align:left;vertical-align:top}
th{position:sticky;top:0;background:Canvas}td.n{text-align:right;font-variant-numeric:tabular-nums}
td.yes{color:#2e7d5b}td.no{color:#b3423a;font-weight:600}td.none,.note{color:#808891}
input{font:inherit;padding:.3rem .5rem;width:20rem;max-width:100%}details{margin:.6rem 0}
"""
_FILTER = """
const box = document.getElementById("filter");
box.addEventListener("input", () => {
  for (const row of document.querySelectorAll("tbody.types tr"))
    row.hidden = !row.dataset.words.includes(box.value.toLowerCase());
});
"""
_CLASSES = {"yes": "yes", "no": "no", "-": "none", "?": "none"}


def as_html(matrix: Matrix) -> str:
    """Write the matrix as a page: sums by family, then a row for each architecture."""
    green = sum(row.is_green for row in matrix.rows)
    versions = ", ".join(f"{name} {number}" for name, number in matrix.versions.items())
    parts = [
        "<h1>Architectures that karez trains and serves</h1>",
        f"<p><b>{green} of {len(matrix.rows)}</b> architectures train at tiny size, on the host "
        f"and on the emulated NPU; transformers knows {matrix.known} that could be tried. Seen on "
        f"{_e(matrix.date)} with {_e(versions)}. The weights are random: this shows that the code "
        "of each architecture works, and nothing about what a large model knows.</p>",
        _legend(),
        "<h2>By family</h2>",
        _families(matrix),
        "<h2>By architecture</h2>",
        '<p><label>Find: <input id="filter" placeholder="part of a name or of a reason"></label>'
        "</p>",
        _architectures(matrix),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Architectures</title><style>{_STYLE}</style></head><body>{''.join(parts)}"
        f"<script>{_FILTER}</script></body></html>\n"
    )


def _legend() -> str:
    rows = "".join(
        f"<tr><td><b>{check}</b></td><td>{_e(MEANING[check])}</td></tr>" for check in COLUMNS
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
    return f'<tr><td>{_e(name)}</td><td class="n">{len(listed)}</td>{cells}</tr>'


def _architectures(matrix: Matrix) -> str:
    body = "".join(_row(row, matrix) for row in matrix.rows)
    return (
        f"<table><thead>{_heads('type', 'family')}</thead>"
        f'<tbody class="types">{body}</tbody></table>'
    )


def _row(row: Row, matrix: Matrix) -> str:
    cells = "".join(_cell(row, check) for check in COLUMNS)
    words = " ".join((row.model_type, row.family, row.architecture, *row.failures.values()))
    why = "".join(
        f'<br><span class="note">{check}: {_e(text)}</span>' for check, text in row.failures.items()
    )
    near = "" if row.is_green else nearest_green(row, matrix.rows)
    like = f'<br><span class="note">nearest that works: {_e(near)}</span>' if near else ""
    return (
        f'<tr data-words="{_e(words.lower())}"><td><b>{_e(row.model_type)}</b> '
        f'<span class="note">{_e(row.architecture)}</span>{why}{like}</td>'
        f"<td>{_e(row.family)}</td>{cells}</tr>"
    )


def _cell(row: Row, check: Check) -> str:
    mark = row.mark(check)
    return f'<td class="{_CLASSES[mark]}">{mark}</td>'


def _heads(*first: str) -> str:
    return "<tr>" + "".join(f"<th>{_e(str(name))}</th>" for name in (*first, *COLUMNS)) + "</tr>"


def _e(text: str) -> str:
    return html.escape(text)
