"""What one foreman writes down for the next."""

from dataclasses import dataclass, fields

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


def memo_of(gang: Gang) -> Memo:
    """What is to be remembered of a gang."""
    own = {f.name: getattr(gang, f.name) for f in fields(Memo) if hasattr(gang, f.name)}
    joining = tuple(number for number, rank in gang.active if rank.joining)
    tainted = tuple(number for number, rank in gang.active if rank.tainted)
    return Memo(**own, joining=joining, tainted=tainted)
