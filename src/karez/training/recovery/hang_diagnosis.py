"""Diagnoses which ranks hang, from samples of their processes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from karez.core.processes import Activity, ProcessSample
from karez.training.recovery.events import UNEVEN, Hung

_ENDED, _MEETING = Activity.QUIESCED.word, Activity.COLLECTIVE.word
_LOADING, _COMPUTING = Activity.LOADING.word, Activity.COMPUTING.word
PATIENCE = 4.0
"""A rank that computes, and uses the processor, may take this multiple of the limit."""
BUSY = 0.05
"""Share of the time between two samples that a rank must have computed to count as busy. A rank
that waits for a processor is busy as well, for a host may have fewer processors than work."""
DATA_S = 600.0
"""How long a rank may wait for its data before that counts as a hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled:
    """Ranks wait for their data: none hangs, and a restart would not help."""

    ranks: tuple[int, ...]
    for_s: float


def find_stopped(samples: Mapping[int, ProcessSample], since: float) -> Hung | None:
    """Ranks whose process is stopped: one sample proves it."""
    stopped = tuple(rank for rank, sample in samples.items() if sample.state == "stopped")
    if not stopped:
        return None
    named = ", ".join(map(str, stopped))
    return Hung(ranks=stopped, why=f"rank {named} was stopped", since=since, code="frozen")


def diagnose(
    first: Mapping[int, ProcessSample],
    second: Mapping[int, ProcessSample],
    *,
    apart_s: float,
    late_s: float,
    limit_s: float,
    since: float,
) -> Hung | Stalled | None:
    """The ranks that hold the gang up, from two samples; None: it makes progress, or is busy.

    Args:
        first: Rank -> sample of its process.
        second: The same, `apart_s` later.
        apart_s: Seconds between the samples.
        late_s: Seconds since the last event of the silent rank.
        limit_s: Seconds from which that is too long.
        since: Time of that last event, for the receipt.
    """
    if (stopped := find_stopped(second, since)) is not None:
        return stopped
    moved = any(
        second[rank].step != before.step for rank, before in first.items() if rank in second
    )
    if moved or not second:
        return None
    behind = _behind(second)
    if not behind:
        return _find_uneven(second, since)
    loading = tuple(n for n, sample in behind.items() if sample.activity == _LOADING)
    if len(loading) == len(behind) and late_s < DATA_S:
        return Stalled(ranks=loading, for_s=late_s)
    hung = tuple(
        rank
        for rank, sample in behind.items()
        if (late_s > PATIENCE * limit_s or not _is_busy(first.get(rank), sample, apart_s))
        and (rank not in loading or late_s >= DATA_S)
    )
    if not hung:
        return None
    named = ", ".join(map(str, hung))
    return Hung(ranks=hung, why=f"rank {named} did not come to the collective", since=since)


def _find_uneven(samples: Mapping[int, ProcessSample], since: float) -> Hung | None:
    """All wait in a collective: for ranks that have ended their loop, or for one another."""
    ended = tuple(n for n, sample in samples.items() if sample.activity == _ENDED)
    waiting = [n for n, sample in samples.items() if sample.activity == _MEETING]
    if not waiting or len(ended) + len(waiting) < len(samples):
        return None
    if not ended:
        return Hung(ranks=(), why="no rank left the collective", since=since)
    named, others = ", ".join(map(str, ended)), ", ".join(map(str, waiting))
    steps = ", ".join(sorted({str(samples[rank].step) for rank in ended}))
    why = (
        f"rank {named} left its loop after step {steps}, and rank {others} waits for it: end the "
        "loop of all ranks at the same step, with run.stop()"
    )
    return Hung(ranks=ended, why=why, since=since, code=UNEVEN)


def _behind(samples: Mapping[int, ProcessSample]) -> dict[int, ProcessSample]:
    """Ranks that have not reached the collective in which the others wait."""
    front = max(sample.step for sample in samples.values())
    return {
        rank: sample
        for rank, sample in samples.items()
        if sample.activity in (_LOADING, _COMPUTING)
        or (sample.activity == _MEETING and sample.step < front)
    }


def _is_busy(before: ProcessSample | None, now: ProcessSample, apart_s: float) -> bool:
    if before is None:
        return True
    return now.state == "running" or now.cpu_s - before.cpu_s > BUSY * apart_s
