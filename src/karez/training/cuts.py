"""Whose shards make up a step: the history of a sharded gang's sizes. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """From here on the state was split over these ranks."""

    after: int
    """The last step that was split otherwise."""
    seats: tuple[int, ...]
    """In the order of their places in the group."""
    born: int = 0
    """The generation in which it began: what is left of such steps from earlier ones was given up,
    and some keeper may still have it."""


def cut_of(cuts: tuple[Cut, ...], step: int, now: tuple[int, ...]) -> Cut:
    """How a step was split; over `now`, if nothing is known of so early a step."""
    known = [cut for cut in cuts if cut.after < step]
    return known[-1] if known else Cut(after=0, seats=now)


def resume(
    cuts: tuple[Cut, ...], step: int, now: tuple[int, ...], born: int, *, is_anew: bool = False
) -> tuple[Cut, ...]:
    """The history once the ranks `now` go on from a step: what came after it is given up.

    Args:
        cuts: The history so far.
        step: From which they go on.
        now: The ranks, in the order of their places in the group.
        born: Their generation.
        is_anew: The step itself is kept as these ranks split it: it came from storage, or is the
            beginning.
    """
    base = step - 1 if is_anew else step
    kept = tuple(cut for cut in cuts if cut.after < base)
    if not is_anew and kept and kept[-1].seats == now and kept[-1] == cuts[-1]:
        return kept
    return (*kept, Cut(after=base, seats=now, born=born))
