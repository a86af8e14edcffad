"""How long rows may be: no question is cut off, and rows that lose something are counted. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from karez.core.errors import BadRequest

Encoded = tuple[list[int], int]
"""Tokens of a row, and how many of them are the question."""
LEAST_ANSWER = 1
"""Tokens of an answer that must be left of a row that is cut."""
OUTLIER = 2
"""A longest row of up to so many times the 99th percentile sets the length; one that is longer
would make all batches with it slow for the sake of a single row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedRows:
    """The rows that are used, and what became of the others."""

    rows: list[Encoded]
    kept: list[int]
    """Numbers of these rows among all."""
    limit: int
    """Tokens that a row may have."""
    cut: int = 0
    """Rows whose answer lost its end."""
    left_out: int = 0
    """Rows whose question alone leaves no room for an answer."""

    def notice(self) -> str:
        """What should be known of it; empty if every row is whole."""
        if not self.cut + self.left_out:
            return ""
        total = len(self.rows) + self.left_out
        return (
            f"of {total:,} rows {self.cut:,} lost the end of their answer and {self.left_out:,} "
            f"were left out: rows may have {self.limit:,} tokens"
        )

    def facts(self) -> dict[str, int]:
        """The same for a card."""
        return {"max_tokens": self.limit, "rows_cut": self.cut, "rows_left_out": self.left_out}


def fit_rows(
    encoded: Sequence[Encoded], *, max_tokens: int, context: int | None, max_cut: float
) -> FittedRows:
    """Choose how long rows may be, and cut the longer ones at the end of their answer.

    Args:
        encoded: All rows, whole.
        max_tokens: The length that was asked for; 0: by the rows themselves.
        context: The longest row that the model can read; None: it has no limit.
        max_cut: Greatest share of rows that may lose something.

    Raises:
        BadRequest: More rows than that would; the error says how long rows are.
    """
    lengths = sorted(len(tokens) for tokens, _ in encoded)
    longest, p99 = lengths[-1], _percentile(lengths, 0.99)
    wanted = max_tokens or (longest if longest <= OUTLIER * p99 else p99)
    limit = min(wanted, context or wanted)
    rows: list[Encoded] = []
    kept: list[int] = []
    cut = 0
    for number, (tokens, prompt) in enumerate(encoded):
        if len(tokens) > limit and prompt + LEAST_ANSWER > limit:
            continue
        cut += len(tokens) > limit
        rows.append((tokens[:limit], prompt))
        kept.append(number)
    left_out = len(encoded) - len(rows)
    if not rows or (cut + left_out) / len(encoded) > max_cut:
        raise BadRequest(
            problem=f"{cut + left_out:,} of {len(encoded):,} rows are longer than the {limit:,} "
            f"tokens that a row may have: half have up to {_percentile(lengths, 0.5):,}, 99% up "
            f"to {p99:,}, the longest {longest:,}",
            fix=_mend(context, longest),
        )
    return FittedRows(rows=rows, kept=kept, limit=limit, cut=cut, left_out=left_out)


def _mend(context: int | None, longest: int) -> str:
    more = "or let more be cut with --set max_cut=SHARE."
    if context is not None and longest > context:
        return f"Shorten the rows (the model reads {context:,} tokens), {more}"
    return f"Leave --set max_tokens away (the longest row has {longest:,}), {more}"


def _percentile(lengths: Sequence[int], share: float) -> int:
    return lengths[max(0, math.ceil(share * len(lengths)) - 1)]
