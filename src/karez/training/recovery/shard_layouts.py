"""History of the shard layouts of a gang: which ranks' shards make up a step. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLayout:
    """One layout: after a step, the state was split over these ranks."""

    after: int
    """The last step of the layout before."""
    ranks: tuple[int, ...]
    """Ranks in the order of their positions in the group."""
    created_generation: int = 0
    """The generation in which this layout began. Shards of these steps from earlier generations
    were given up, though a replica server may still have them."""


def layout_at(layouts: tuple[ShardLayout, ...], step: int, now: tuple[int, ...]) -> ShardLayout:
    """The layout of a step; split over `now`, if the history does not reach back so far."""
    earlier = [layout for layout in layouts if layout.after < step]
    return earlier[-1] if earlier else ShardLayout(after=0, ranks=now)


def layouts_after(
    layouts: tuple[ShardLayout, ...],
    step: int,
    now: tuple[int, ...],
    generation: int,
    *,
    is_resplit: bool = False,
) -> tuple[ShardLayout, ...]:
    """The history once the ranks `now` continue from a step: later steps are given up.

    Args:
        layouts: The history so far.
        step: The step that the ranks continue from.
        now: The ranks, in the order of their positions in the group.
        generation: The generation of those ranks.
        is_resplit: The step itself is kept as these ranks split it: it came from storage, or is
            the first.
    """
    base = step - 1 if is_resplit else step
    kept = tuple(layout for layout in layouts if layout.after < base)
    if not is_resplit and kept and kept[-1].ranks == now and kept[-1] == layouts[-1]:
        return kept
    return (*kept, ShardLayout(after=base, ranks=now, created_generation=generation))
