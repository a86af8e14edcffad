"""Pages that need nothing from outside: their style, escapes and small charts. Pure."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
td,th{padding:.25rem .5rem;border-bottom:1px solid #8884;text-align:left;vertical-align:top}
th{position:sticky;top:0;background:Canvas}.n{text-align:right;font-variant-numeric:tabular-nums}
td.yes{color:#2e7d5b}td.no{color:#b3423a;font-weight:600}td.none,.note{color:#808891}
input{font:inherit;padding:.3rem .5rem;width:20rem;max-width:100%}details{margin:.6rem 0}
svg{max-width:34rem;width:100%;height:auto}
svg text{font:12px system-ui,sans-serif;fill:currentColor}
svg .axis{stroke:#8888;fill:none}svg .dash{stroke:#8888;stroke-dasharray:4 4}
.charts{display:flex;flex-wrap:wrap;gap:2rem}figure{margin:0;flex:1 1 20rem}
"""
FILTER = """
const box = document.getElementById("filter");
box.addEventListener("input", () => {
  for (const row of document.querySelectorAll("tbody.found tr"))
    row.hidden = !row.dataset.words.includes(box.value.toLowerCase());
});
"""
COLOURS = ("#3a76b3", "#c2762e", "#2e7d5b")
"""Of the lines of a chart: seen on light and dark grounds, and told apart by those who see no
red or green."""
_LEFT, _TOP, _WIDTH, _HEIGHT = 48, 14, 380, 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]


def escaped(text: object) -> str:
    """A text as HTML shows it."""
    return html.escape(str(text))


def page(title: str, parts: Iterable[str], *, has_filter: bool = False) -> str:
    """A whole page; with a filter, an input of the id `filter` hides rows of `tbody.found`."""
    script = f"<script>{FILTER}</script>" if has_filter else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escaped(title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}{script}</body></html>\n"
    )


def rows_table(heads: Sequence[str], rows: Iterable[Sequence[object]], numbers: int = 0) -> str:
    """A table; the last `numbers` columns are aligned as numbers."""
    plain_heads = len(heads) - numbers
    head = "".join(
        f"<th{' class=n' * (n >= plain_heads)}>{escaped(one)}</th>" for n, one in enumerate(heads)
    )
    body = []
    for row in rows:
        plain = "".join(f"<td>{escaped(one)}</td>" for one in row[: len(row) - numbers])
        told = row[len(row) - numbers :] if numbers else ()
        body.append(
            f"<tr>{plain}{''.join(f'<td class=n>{escaped(one)}</td>' for one in told)}</tr>"
        )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def chart(title: str, across: str, lines: Sequence[Line], *, low: float, diagonal: bool) -> str:
    """A chart of shares: both axes end at 100%; the upright one begins at `low`."""
    parts = [
        f'<rect class="axis" x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}"/>',
        *(_tick(low, share) for share in (low, (1 + low) / 2, 1.0)),
        *(
            f'<text x="{_x(share):.0f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">'
            f"{share:.0%}</text>"
            for share in (0.0, 0.5, 1.0)
        ),
        f'<text x="{_LEFT + _WIDTH / 2:.0f}" y="{_TOP + _HEIGHT + 36}" text-anchor="middle">'
        f"{escaped(across)}</text>",
    ]
    if diagonal:
        start = f"{_x(low):.1f},{_y(low, low):.1f}"
        parts.append(f'<polyline class="dash" points="{start} {_x(1):.1f},{_y(1, low):.1f}"/>')
    for line, colour in zip(lines, COLOURS, strict=False):
        points = " ".join(f"{_x(x):.1f},{_y(y, low):.1f}" for x, y in line.points)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    legend = " ".join(
        f'<span style="color:{colour}">&#9632;</span> {escaped(line.name)}'
        for line, colour in zip(lines, COLOURS, strict=False)
    )
    size = f"0 0 {_LEFT + _WIDTH + 20} {_TOP + _HEIGHT + 44}"
    return (
        f"<figure><figcaption><b>{escaped(title)}</b> {legend}</figcaption>"
        f'<svg viewBox="{size}" role="img" aria-label="{escaped(title)}">{"".join(parts)}</svg>'
        "</figure>"
    )


def _tick(low: float, share: float) -> str:
    return (
        f'<text x="{_LEFT - 6}" y="{_y(share, low) + 4:.0f}" text-anchor="end">{share:.0%}</text>'
    )


def _x(share: float) -> float:
    return _LEFT + share * _WIDTH


def _y(share: float, low: float) -> float:
    return _TOP + _HEIGHT * (1 - (max(share, low) - low) / (1 - low))
