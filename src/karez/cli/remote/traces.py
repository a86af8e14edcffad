"""`karez jobs trace`: what a job went through, as bars over time, in a terminal or on a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import JobName, Json, client
from karez.cli.output import clock, json_out
from karez.cli.terminal import say
from karez.core.errors import BadRequest
from karez.core.traces import Span, Trace
from karez.core.units import show_seconds

BAR = 40
"""Columns of a bar in a terminal."""
ROW, WIDTH, LEFT, RIGHT = 22, 1000, 190, 90
"""Height of a row, and widths of the page's drawing, its names and its times, in pixels."""
COLOURS = {
    "job": "#ced4da",
    "queue": "#adb5bd",
    "run": "#a5d8ff",
    "start": "#ffd43b",
    "train": "#2b8a3e",
    "work": "#2b8a3e",
    "drain": "#74b816",
    "recovery": "#e8590c",
}
PART = "#ffa94d"
"""Colour of a part of a recovery."""
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;"
    "color:#212529}svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:#343a40}"
    "g:hover rect.row{fill:#f1f3f5}rect.row{fill:transparent}.error{color:#c92a2a}"
    "text.fact{fill:#868e96}"
)


def show_trace(
    job: JobName,
    page: Annotated[
        Path | None, typer.Option(help="Write a page with the trace into this file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a job went through: queue, starts, steps, faults and recoveries.

    Example: karez jobs trace support-tune --page trace.html
    """
    found = client().trace(job)
    if page is not None:
        try:
            page.write_text(render(found), encoding="utf-8")
        except OSError as error:
            problem = f"cannot write {page}: {error.strerror}"
            raise BadRequest(problem=problem, fix="Name another file with --page.") from error
        say(f"wrote {page}")
    elif as_json:
        json_out(found)
    else:
        say(f"trace {found.id} of {found.name}, from {clock(found.spans[0].began_at)}")
        scale = _Scale.of(found)
        for span, depth in _nested(found):
            say(_line(scale, span, depth))


def render(trace: Trace) -> str:
    """Render a trace as one self-contained HTML page; a row says more when pointed at."""
    rows, scale = _nested(trace), _Scale.of(trace)
    height = ROW * len(rows) + 30
    drawn = "".join(_row(scale, span, depth, n) for n, (span, depth) in enumerate(rows))
    faults = "".join(
        f'<li class="error">{escape(clock(span.began_at))}: {escape(span.error)}</li>'
        for span, _ in rows
        if span.error
    )
    title = f"Trace of {trace.name}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        f"</title><style>{_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>"
        f"<p>Job {escape(trace.job)}, trace {trace.id}: {clock(scale.began_at)} to"
        f" {clock(scale.ended_at)}, {show_seconds(scale.whole_s)}.</p>\n"
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{drawn}'
        f"{_axis(scale.whole_s, height)}</svg>\n"
        + (f"<h2>What went wrong</h2><ul>{faults}</ul>" if faults else "<p>Nothing went wrong.</p>")
        + "\n</body></html>\n"
    )


def _nested(trace: Trace) -> Sequence[tuple[Span, int]]:
    """The spans with their depth, children below their parent by time."""
    children: dict[str, list[Span]] = {}
    for span in trace.spans:
        children.setdefault(span.parent, []).append(span)
    rows: list[tuple[Span, int]] = []

    def add(parent: str, depth: int) -> None:
        for span in sorted(children.get(parent, []), key=lambda one: one.began_at):
            rows.append((span, depth))
            add(span.id, depth + 1)

    add("", 0)
    return rows


@dataclass(frozen=True, slots=True)
class _Scale:
    """The time of a whole trace; what goes on ends when it was read."""

    began_at: float
    ended_at: float
    read_at: float

    @classmethod
    def of(cls, trace: Trace) -> "_Scale":
        began_at = min(span.began_at for span in trace.spans)
        ends = (trace.at if span.ended_at is None else span.ended_at for span in trace.spans)
        return cls(began_at, max(began_at + 1e-6, *ends), trace.at)

    @property
    def whole_s(self) -> float:
        return self.ended_at - self.began_at

    def seconds(self, span: Span) -> float:
        until = self.read_at if span.ended_at is None else span.ended_at
        return max(0.0, until - span.began_at)

    def shares(self, span: Span) -> tuple[float, float]:
        """Begin and length of a span, as shares of the whole."""
        begin = (span.began_at - self.began_at) / self.whole_s
        return begin, self.seconds(span) / self.whole_s

    def length(self, span: Span) -> str:
        goes_on = "+" if span.ended_at is None else ""
        return f"{show_seconds(self.seconds(span))}{goes_on}"


def _line(scale: _Scale, span: Span, depth: int) -> str:
    begin, share = scale.shares(span)
    left = min(BAR - 1, round(begin * BAR))
    bar = " " * left + "#" * max(1, min(BAR - left, round(share * BAR)))
    told = ", ".join(f"{name}={value}" for name, value in span.attributes.items() if depth)
    name = "  " * depth + span.name
    return f"{name:16} |{bar:{BAR}}| {scale.length(span):>9}  {told}"[:160].rstrip()


def _row(scale: _Scale, span: Span, depth: int, number: int) -> str:
    begin, share = scale.shares(span)
    room, y = WIDTH - LEFT - RIGHT, number * ROW
    colour = COLOURS.get(span.name, PART)
    facts = [f"{name}: {value}" for name, value in span.attributes.items()]
    said = "\n".join([span.name, f"from {clock(span.began_at)}", *facts, span.error]).rstrip()
    return (
        f"<g><title>{escape(said)}</title>"
        f'<rect class="row" x="0" y="{y}" width="{WIDTH}" height="{ROW}"/>'
        f'<text x="{4 + 14 * depth}" y="{y + 15}">{escape(span.name)}</text>'
        f'<rect x="{LEFT + begin * room:.1f}" y="{y + 4}" width="{max(2.0, share * room):.1f}"'
        f' height="{ROW - 8}" rx="2" fill="{colour}"/>'
        f"{_beside(_short(span), LEFT + begin * room, LEFT + (begin + share) * room, y + 15)}"
        f'<text x="{WIDTH - RIGHT + 8}" y="{y + 15}">{escape(scale.length(span))}</text></g>'
    )


def _short(span: Span) -> str:
    """What is most worth knowing of a span, in a few words."""
    of = span.attributes
    match span.name:
        case "run":
            return f"{of['devices']} devices on {of['nodes']}"
        case "train" if "to_step" in of:
            return f"steps {of['from_step']} to {of['to_step']}"
        case "recovery":
            return f"{of['code']}, {of['rung']}: back to step {of['step_restored']}"
        case _:
            return ""


def _beside(text: str, left: float, right: float, y: int) -> str:
    """A text after a bar, or before it where there is more room."""
    if WIDTH - RIGHT - right > left - LEFT:
        return f'<text class="fact" x="{right + 6:.0f}" y="{y}">{escape(text)}</text>'
    return f'<text class="fact" x="{left - 6:.0f}" y="{y}" text-anchor="end">{escape(text)}</text>'


def _axis(whole_s: float, height: int) -> str:
    room = WIDTH - LEFT - RIGHT
    marks = (
        f'<text x="{LEFT + share * room:.0f}" y="{height - 8}" text-anchor="middle">'
        f"{show_seconds(share * whole_s)}</text>"
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    return "".join(marks)
