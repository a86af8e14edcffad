"""What one foreman writes down for the next."""

from dataclasses import dataclass, fields, replace

from karez.core.resources import NodeId
from karez.training.cuts import Cut
from karez.training.gang import Fault, Gang, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Memo:
    """What a foreman must not forget: all that its gang's processes cannot tell the next one."""

    generation: int
    phase: Phase
    faults: int = 0
    best: int = 0
    fault: Fault | None = None
    past: tuple[tuple[NodeId, float], ...] = ()
    skipped: tuple[int, ...] = ()
    poison: tuple[int, int] = (0, 0)
    joining: tuple[int, ...] = ()
    tainted: tuple[int, ...] = ()
    cuts: tuple[Cut, ...] = ()
    slowest_start_s: float = 0.0


def memo_of(gang: Gang) -> Memo:
    """What is to be remembered of a gang."""
    own = {f.name: getattr(gang, f.name) for f in fields(Memo) if hasattr(gang, f.name)}
    joining = tuple(number for number, rank in gang.active if rank.joining)
    tainted = tuple(number for number, rank in gang.active if rank.tainted)
    return Memo(**own, joining=joining, tainted=tainted)


def remember(gang: Gang, memo: Memo | None) -> Gang:
    """A gang that starts, with what counts beyond the lives of its processes."""
    if memo is None:
        return gang
    slowest = memo.slowest_start_s
    return replace(gang, skipped=memo.skipped, cuts=memo.cuts, slowest_start_s=slowest)


def numbers_in(memo: Memo | None) -> set[int]:
    """The numbers of ranks that had a part of the state once."""
    return {seat for cut in memo.cuts for seat in cut.seats} if memo is not None else set()


def inherited(memo: Memo | None, now: float, step: int, heard_at: float) -> Fault | None:
    """What a job that starts over recovers from; None: it was stopped on purpose, or is new.

    Args:
        memo: What the foreman before wrote down last.
        now: UTC epoch seconds.
        step: The last step that it was known to have completed.
        heard_at: When that was.
    """
    if memo is None or memo.phase == Phase.DRAINING:
        return None
    if memo.fault is not None:
        return replace(memo.fault, rung="restart")
    if memo.phase == Phase.DONE or not step:
        return None
    return Fault(
        cause="all of its processes were gone when control came back", ranks=(), rung="restart",
        code="control", detected_at=min(now, heard_at), confirmed_at=now, step_before=step,
    )  # fmt: skip
