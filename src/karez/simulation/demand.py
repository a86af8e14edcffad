"""Request load over time, read from Azure's, ServeGen's or karez's own columns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from karez.core.errors import BadRequest
from karez.simulation.tables import Line, read_table

MOST_WINDOWS = 1_000_000
MOST_WINDOW_S = 30 * 86_400.0
SERVEGEN_S = 600.0
"""Length of ServeGen's windows, in seconds."""
_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Load per second in each window of time."""

    window_s: float
    load: tuple[float, ...]
    unit: str


def read_demand(lines: Iterable[str], file: str, window_s: float = 60.0) -> Demand:
    """Read requests of Azure's columns, ServeGen's rates, or karez's own `at,load`.

    Raises:
        BadRequest: Unknown columns, a cell is out of bounds, or there is no request.
    """
    if not 1 <= window_s <= MOST_WINDOW_S:
        raise BadRequest(problem=f"--window is between 1 s and 30 days, not {window_s:g} s")
    rows = iter(lines)
    heading = next(rows, "")
    heads = {head.strip() for head in heading.split(",")}
    table = (line for part in ([heading], rows) for line in part)
    if "TIMESTAMP" in heads:
        tokens = [_azure(line) for line in read_table(table, file, _AZURE)]
        return _demand(tokens, window_s, "tokens/s", file, is_rate=False)
    if "window_start_s" in heads:
        rates = _rates(table, file, "window_start_s", "rate_rps")
        return _demand(rates, SERVEGEN_S, "requests/s", file, is_rate=True)
    if "at" in heads:
        return _demand(_rates(table, file, "at", "load"), window_s, "load/s", file, is_rate=True)
    raise BadRequest(
        problem=f"in {file}, line 1: these are not the columns of a known request trace",
        fix="Name TIMESTAMP,ContextTokens,GeneratedTokens (Azure), window_start_s,rate_rps "
        "(ServeGen), or at,load.",
    )


def _azure(line: Line) -> tuple[float, float]:
    tokens = line.whole("ContextTokens") + line.whole("GeneratedTokens")
    return line.instant("TIMESTAMP"), float(tokens)


def _rates(lines: Iterable[str], file: str, at: str, rate: str) -> list[tuple[float, float]]:
    table = read_table(lines, file, (at, rate))
    return [(line.instant(at), line.number_in(rate, high=1e12)) for line in table]


def _demand(
    amounts: Sequence[tuple[float, float]], window_s: float, unit: str, file: str, *, is_rate: bool
) -> Demand:
    """Sum (instant, amount) pairs over windows; amounts that are no rates become rates."""
    if not amounts:
        raise BadRequest(problem=f"the file {file} holds no request")
    at = np.array([pair[0] for pair in amounts])
    windows = ((at - at.min()) // window_s).astype(np.int64)
    if int(windows.max()) >= MOST_WINDOWS:
        raise BadRequest(
            problem=f"in {file}: the requests span more than {MOST_WINDOWS} windows of "
            f"{window_s:g} s",
            fix="Give a longer --window.",
        )
    load = np.zeros(int(windows.max()) + 1)
    np.add.at(load, windows, np.array([pair[1] for pair in amounts]))
    per_second = load if is_rate else load / window_s
    return Demand(window_s=window_s, load=tuple(per_second.tolist()), unit=unit)
