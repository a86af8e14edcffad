"""Goodput: how much of a job's time went into steps that count."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from karez.core.receipts import Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class RungFigures:
    """Number and durations of the recoveries by one rung."""

    rung: str
    count: int
    mean_s: float
    median_s: float
    longest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """Share of a job's time that went into steps that count.

    Goodput is the share of the time from its first start to its end (or now) that was neither
    spent recovering, nor on steps done again, nor waiting after a restart of the whole job.
    `restarts` counts the faults that ended all processes of the job.
    """

    elapsed_s: float
    lost_s: float
    goodput: float
    interruptions: int
    restarts: int
    steps_lost: int
    mean_recovery_s: float
    longest_run_s: float
    """The longest time without a restart of the whole job."""
    rungs: tuple[RungFigures, ...] = ()


def goodput(
    receipts: Iterable[Receipt],
    *,
    began_at: float,
    until: float,
    step_s: float,
    waited: Sequence[tuple[float, float]] = (),
) -> Goodput:
    """Compute the goodput of a job.

    Args:
        receipts: Of one job, or of many whose `elapsed` is summed elsewhere.
        began_at: When the job first ran, UTC epoch seconds.
        until: Its end, or now.
        step_s: Median time of one step.
        waited: Spans (from, until) in which it held no devices, or did not work, after a restart.
            A span that a receipt covers counts once.
    """
    by_time = sorted(receipts, key=lambda receipt: receipt.detected_at)
    steps_lost = sum(receipt.steps_lost for receipt in by_time)
    waits = [(start, end) for start, end in waited if not _is_covered(start, end, by_time)]
    idle_s = sum(max(0.0, end - start) for start, end in waits)
    lost_s = sum(receipt.recovery_s for receipt in by_time) + steps_lost * step_s + idle_s
    elapsed_s = max(0.0, until - began_at)
    restarts = [receipt.detected_at for receipt in by_time if receipt.rung == "restart"]
    ends = [began_at, *sorted([*restarts, *(start for start, _ in waits)]), until]
    return Goodput(
        elapsed_s=elapsed_s,
        lost_s=min(lost_s, elapsed_s),
        goodput=max(0.0, 1.0 - lost_s / elapsed_s) if elapsed_s else 1.0,
        interruptions=len(by_time) + len(waits),
        restarts=len(restarts) + len(waits),
        steps_lost=steps_lost,
        mean_recovery_s=fmean([r.recovery_s for r in by_time]) if by_time else 0.0,
        longest_run_s=max((late - early for early, late in pairwise(ends)), default=0.0),
        rungs=_rung_figures(by_time),
    )


def _rung_figures(receipts: Iterable[Receipt]) -> tuple[RungFigures, ...]:
    seconds_by_rung: dict[str, list[float]] = {}
    for receipt in receipts:
        seconds_by_rung.setdefault(receipt.rung, []).append(receipt.recovery_s)
    return tuple(
        RungFigures(
            rung=rung,
            count=len(seconds),
            mean_s=fmean(seconds),
            median_s=median(seconds),
            longest_s=max(seconds),
        )
        for rung, seconds in sorted(seconds_by_rung.items())
    )


def _is_covered(start: float, end: float, receipts: Iterable[Receipt]) -> bool:
    return any(
        receipt.rung == "restart" and receipt.detected_at <= end and receipt.resumed_at >= start
        for receipt in receipts
    )
