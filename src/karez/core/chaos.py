"""Plans of injected faults, reproducible from a seed. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from karez.core.fault_injection import FaultKind
from karez.core.validation import FORBID

MAX_FAULTS = 10_000
MAX_DELAY_S = 60.0
HEALED = frozenset(
    {FaultKind.KILL, FaultKind.STOP, FaultKind.CORRUPT, FaultKind.LINK, FaultKind.NODE}
)
"""Faults that a gang recovers from, with a receipt; the others must not disturb it."""
SHARED = frozenset({FaultKind.REPLICA_SERVER, FaultKind.CONTROLLER, FaultKind.CONTROL})
"""Faults of processes that other jobs use too: only for admins of all projects."""
MAX_AT_ONCE = 64
TOGETHER = 0.15
"""Share of faults that are injected during the recovery from the previous fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSpec:
    """One fault to inject."""

    __pydantic_config__: ClassVar[Any] = FORBID

    what: FaultKind
    rank: int = 0
    after_s: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"a rank is 0 or more, not {self.rank}")
        if not 0.0 <= self.after_s <= MAX_DELAY_S:
            raise ValueError(f"after_s is 0 to {MAX_DELAY_S:.0f} seconds, not {self.after_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedFault:
    """A fault that was injected, and when, by control's clock."""

    what: FaultKind
    rank: int
    at: float


def parse_faults(text: str) -> list[FaultKind]:
    """Expand `kill:50,stop:3` into a list of faults.

    Raises:
        ValueError: An unknown fault, or an invalid count.
    """
    faults: list[FaultKind] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, count = word.partition(":")
        try:
            what = FaultKind(name)
        except ValueError:
            names = ", ".join(kind.value for kind in FaultKind)
            raise ValueError(f"there is no fault {name!r}; there are {names}") from None
        if count and not count.isdecimal():
            raise ValueError(f"{word!r} should read FAULT:COUNT, such as kill:50")
        faults += [what] * int(count or 1)
        if len(faults) > MAX_FAULTS:
            raise ValueError(f"more than {MAX_FAULTS:,} faults")
    if not faults:
        raise ValueError("name at least one fault, such as kill:50")
    return faults


def plan_faults(faults: Sequence[FaultKind], *, ranks: int, seed: int) -> list[list[FaultSpec]]:
    """Shuffle faults over ranks, in groups: each is injected after recovery from the previous one.

    Some groups have a second fault, injected during the recovery from the first.
    """
    import numpy as np  # noqa: PLC0415 - the client imports this module and works without NumPy

    chance = np.random.Generator(np.random.PCG64(seed))
    order = [faults[i] for i in chance.permutation(len(faults))]
    groups: list[list[FaultSpec]] = []
    for what in order:
        rank = int(chance.integers(ranks))
        overlaps = chance.random() < TOGETHER and what in HEALED
        if overlaps and groups and groups[-1][0].what in HEALED and len(groups[-1]) == 1:
            delay_s = float(chance.uniform(0.0, 0.1))
            groups[-1].append(FaultSpec(what=what, rank=rank, after_s=round(delay_s, 4)))
        else:
            groups.append([FaultSpec(what=what, rank=rank)])
    return groups
