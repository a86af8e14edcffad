"""Whose shards make up a step: the history of a sharded gang's sizes. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLayout:
    """From here on the state was split over these ranks."""

    after: int
    """The last step that was split otherwise."""
    ranks: tuple[int, ...]
    """In the order of their places in the group."""
    created_generation: int = 0
    """The generation in which it began: what is left of such steps from earlier ones was given up,
    and some keeper may still have it."""


def layout_at(cuts: tuple[ShardLayout, ...], step: int, now: tuple[int, ...]) -> ShardLayout:
    """How a step was split; over `now`, if nothing is known of so early a step."""
    known = [cut for cut in cuts if cut.after < step]
    return known[-1] if known else ShardLayout(after=0, ranks=now)


def layouts_after(
    cuts: tuple[ShardLayout, ...],
    step: int,
    now: tuple[int, ...],
    born: int,
    *,
    is_anew: bool = False,
) -> tuple[ShardLayout, ...]:
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
    if not is_anew and kept and kept[-1].ranks == now and kept[-1] == cuts[-1]:
        return kept
    return (*kept, ShardLayout(after=base, ranks=now, created_generation=born))
