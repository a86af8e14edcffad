"""Verifies a decision log: replays its inputs and compares each decision with the logged one."""

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
    """Result of verifying a decision log."""

    steps: int
    decisions: int
    line: int | None = None
    """The first line that differs; None: none does."""
    logged: str = ""
    """The decision in the log; empty: none."""
    redone: str = ""
    """The replayed decision; empty: none."""


def verify_log(lines: Iterable[str]) -> LogVerification:
    """Replay a decision log on a new engine, and compare every decision.

    Raises:
        ValueError: A line is not a valid step; the message names its number.
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
