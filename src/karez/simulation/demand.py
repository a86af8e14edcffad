"""Requests over time, read from Azure's, Mooncake's, ServeGen's or karez's own columns.

What is simulated are answers at once: each request keeps one of a replica's places for as long as
its tokens take there; rates keep as many as their load takes.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from karez.core.errors import BadRequest
from karez.simulation.colocation_report import Colocation
from karez.simulation.tables import MOST_INSTANT, Line, read_table

MOST_TICKS = 1_000_000
MOST_WINDOW_S = 30 * 86_400.0
SERVEGEN_S = 600.0
"""Length of ServeGen's windows, in seconds."""
TICK_S, RATE_TICK_S = 1.0, 10.0
"""Seconds of a tick: of requests, and of rates, which change less."""
_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_MOONCAKE = ("timestamp", "input_length", "output_length")
Pairs = Sequence[tuple[float, float]]
"""(instant, amount)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Answers at once in each tick of time."""

    tick_s: float
    busy: tuple[float, ...]
    answer_s: float
    """Seconds of an answer, on average."""


def read_demand(
    lines: Iterable[str], file: str, sharing: Colocation, *, window_s: float = 60.0
) -> Demand:
    """Read the requests or rates of a trace.

    Args:
        lines: Azure's columns, Mooncake's JSON lines, ServeGen's rates, or karez's own `at,load`.
        file: Its name, for errors.
        sharing: How fast a replica is, and how many answers it gives at once.
        window_s: Seconds over which the rates of `at,load` are summed.

    Raises:
        BadRequest: Unknown columns, a cell is out of bounds, or there is no request.
    """
    if not 1 <= window_s <= MOST_WINDOW_S:
        raise BadRequest(problem=f"--window is between 1 s and 30 days, not {window_s:g} s")
    rows = iter(lines)
    heading = next(rows, "")
    heads = {head.strip() for head in heading.split(",")}
    table = itertools.chain([heading], rows)
    if heading.lstrip().startswith("{"):
        return _requests(list(_mooncake(table, file)), file, sharing)
    if "TIMESTAMP" in heads:
        return _requests([_azure(line) for line in read_table(table, file, _AZURE)], file, sharing)
    if "window_start_s" in heads:
        rates = _read_rates(table, file, "window_start_s", "rate_rps")
        return _rates(rates, SERVEGEN_S, file, sharing)
    if "at" in heads:
        return _rates(_read_rates(table, file, "at", "load"), window_s, file, sharing)
    raise BadRequest(
        problem=f"in {file}, line 1: these are not the columns of a known request trace",
        fix="Name TIMESTAMP,ContextTokens,GeneratedTokens (Azure), window_start_s,rate_rps "
        "(ServeGen), or at,load; or give Mooncake's JSON lines.",
    )


def _azure(line: Line) -> tuple[float, float]:
    tokens = line.whole("ContextTokens") + line.whole("GeneratedTokens")
    return line.instant("TIMESTAMP"), float(tokens)


def _mooncake(lines: Iterable[str], file: str) -> Iterator[tuple[float, float]]:
    """Milliseconds and lengths of requests, one JSON object a line."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            at_ms, asked, said = (float(row[name]) for name in _MOONCAKE)
        except (ValueError, LookupError, TypeError):
            at_ms, asked, said = -1.0, 0.0, 0.0
        if not (0 <= at_ms <= MOST_INSTANT and 0 <= asked <= MOST_INSTANT and said >= 0):
            names = ", ".join(_MOONCAKE)
            raise BadRequest(
                problem=f"in {file}, line {number}: this is no JSON object with {names}",
                fix="Correct the line.",
            )
        yield at_ms / 1000, asked + said


def _read_rates(lines: Iterable[str], file: str, at: str, rate: str) -> Pairs:
    table = read_table(lines, file, (at, rate))
    return [(line.instant(at), line.number_in(rate, high=1e12)) for line in table]


def _requests(requests: Pairs, file: str, sharing: Colocation) -> Demand:
    """Requests of tokens, each in a place of its own for as long as they take there."""
    if not requests:
        raise BadRequest(problem=f"the file {file} holds no request")
    at = np.array([pair[0] for pair in requests])
    takes_s = np.array([pair[1] for pair in requests]) * sharing.parallel / sharing.replica_rate
    at -= at.min()
    ticks = _ticks(float(at.max()), TICK_S, file)
    change = np.zeros(ticks + 1)
    for instants, sign in ((at, 1.0), (at + takes_s, -1.0)):
        inside = instants / TICK_S < ticks
        whole = (instants[inside] / TICK_S).astype(np.int64)
        part = instants[inside] / TICK_S - whole
        np.add.at(change, whole, sign * (1 - part))
        np.add.at(change, whole + 1, sign * part)
    busy = np.maximum(0.0, np.cumsum(change)[:ticks]) * sharing.times
    return Demand(
        tick_s=TICK_S,
        busy=tuple(busy.tolist()),
        answer_s=max(float(takes_s.mean()), TICK_S),
    )


def _rates(rates: Pairs, window_s: float, file: str, sharing: Colocation) -> Demand:
    """Rates of load, summed over windows."""
    if not rates:
        raise BadRequest(problem=f"the file {file} holds no request")
    at = np.array([pair[0] for pair in rates])
    windows = ((at - at.min()) // window_s).astype(np.int64)
    each = max(1, round(window_s / RATE_TICK_S))
    _ticks(float(windows.max()) * each, 1.0, file)
    load = np.zeros(int(windows.max()) + 1)
    np.add.at(load, windows, np.array([pair[1] for pair in rates]))
    busy = np.repeat(load, each) / sharing.replica_rate * sharing.parallel * sharing.times
    return Demand(
        tick_s=window_s / each,
        busy=tuple(busy.tolist()),
        answer_s=sharing.answer_s,
    )


def _ticks(last: float, tick_s: float, file: str) -> int:
    ticks = int(last // tick_s) + 1
    if ticks > MOST_TICKS:
        raise BadRequest(
            problem=f"in {file}: the requests span more than {MOST_TICKS:,} ticks",
            fix="Give a part of them, or a longer --window.",
        )
    return ticks
