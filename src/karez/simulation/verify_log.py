"""Redoes a journal: the same inputs give the same decisions, live or here, or it says where not."""

from collections.abc import Iterable
from dataclasses import dataclass

from karez.scheduling.decision_log import (
    RecordedEngine,
    format_decision,
    normalize_decision,
    parse_delta,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogVerification:
    """What redoing a journal came to."""

    steps: int
    decisions: int
    line: int | None = None
    """The first line that is not the same; None: all are."""
    logged: str = ""
    """The decision that is written there; empty: none."""
    redone: str = ""
    """The decision that was made here; empty: none."""


def verify_log(lines: Iterable[str]) -> LogVerification:
    """Tell a new desk what a journal tells, and compare every decision.

    Raises:
        ValueError: A line is no step; the message has its number.
    """
    engine_log, steps, decisions, number = RecordedEngine(), 0, 0, 0
    made: list[str] = []
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\n")
        if not text.startswith("{"):
            decisions += 1
            expected = made.pop(0) if made else ""
            if normalize_decision(text) != expected:
                return LogVerification(
                    steps=steps, decisions=decisions, line=number, logged=text, redone=expected
                )
            continue
        if made:
            return LogVerification(steps=steps, decisions=decisions, line=number, redone=made[0])
        try:
            step = parse_delta(text)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        steps += 1
        try:
            made = [format_decision(step.at, act) for act in engine_log.advance(step)]
        except (KeyError, ValueError, IndexError) as error:
            raise ValueError(f"line {number}: it tells of what was never there: {error}") from error
    last = made[0] if made else ""
    return LogVerification(
        steps=steps, decisions=decisions, line=number + 1 if made else None, redone=last
    )
