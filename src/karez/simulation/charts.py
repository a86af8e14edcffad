"""Draws reports as one self-contained HTML file with plots."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM = 640, 320, 60, 24, 40
COLOURS = ("#0b7285", "#e8590c", "#5f3dc4", "#2b8a3e")
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;"
    "color:#212529}table{border-collapse:collapse;width:100%}td,th{padding:.25rem .6rem;"
    "text-align:right;border-bottom:1px solid #dee2e6}td:first-child,th:first-child"
    "{text-align:left}svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:#495057}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve of a chart."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[float] = ()
    """Half the width of a band around the curve, point by point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Curves over one pair of axes, both from zero."""

    title: str
    across: str
    upward: str
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with a heading."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def page(title: str, said: str, parts: Sequence[Chart | Table]) -> str:
    """Render a whole HTML page."""
    body = "\n".join(_chart(part) if isinstance(part, Chart) else _table(part) for part in parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        f"</title><style>{_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>"
        f"<p>{escape(said)}</p>\n{body}\n</body></html>\n"
    )


def _table(table: Table) -> str:
    heads = "".join(f"<th>{escape(head)}</th>" for head in table.heads)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return f"<h2>{escape(table.title)}</h2><table><tr>{heads}</tr>\n{rows}</table>"


def ticks(most: float) -> list[float]:
    """Round numbers from zero to at least `most`: steps of 1, 2 or 5 times a power of ten."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]


def _chart(chart: Chart) -> str:
    points = [point for line in chart.lines for point in line.points]
    across = ticks(max((x for x, _ in points), default=0))
    upward = ticks(max((y for _, y in points), default=0))
    top = 12 + 18 * len(chart.lines)

    def place(x: float, y: float) -> tuple[float, float]:
        right = x / across[-1] * (WIDTH - LEFT - RIGHT)
        up = min(1.0, max(0.0, y / upward[-1])) * (HEIGHT - BOTTOM - top)
        return LEFT + right, HEIGHT - BOTTOM - up

    marks: list[str] = []
    for value in upward:
        _, y = place(0, value)
        marks.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e9ecef"/>')
        marks.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in across:
        x, _ = place(value, 0)
        below = HEIGHT - BOTTOM + 16
        marks.append(f'<text x="{x:.1f}" y="{below}" text-anchor="middle">{value:g}</text>')
    for number, line in enumerate(chart.lines):
        colour = COLOURS[number % len(COLOURS)]
        if line.band:
            both = list(zip(line.points, line.band, strict=True))
            edge = [place(x, y + half) for (x, y), half in both]
            edge += [place(x, y - half) for (x, y), half in reversed(both)]
            marks.append(f'<polygon points="{_path(edge)}" fill="{colour}" opacity=".18"/>')
        path = _path([place(x, y) for x, y in line.points])
        drawn = f'fill="none" stroke="{colour}" stroke-width="2"'
        marks.append(f'<polyline points="{path}" {drawn}/>')
        name = escape(line.name)
        marks.append(f'<text x="{LEFT}" y="{14 + 18 * number}" style="fill:{colour}">{name}</text>')
    return (
        f'<h2>{escape(chart.title)}</h2><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(chart.title)}">{"".join(marks)}'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(chart.across)}'
        f'</text><text x="12" y="{HEIGHT / 2}" text-anchor="middle" '
        f'transform="rotate(-90 12 {HEIGHT / 2})">{escape(chart.upward)}</text></svg>'
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
