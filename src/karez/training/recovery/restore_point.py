"""From which step a gang goes on, and who has what of it. Pure."""

from karez.training.recovery.shard_layouts import layout_at
from karez.training.recovery.state import SOURCES, Gang, Rank


def member_indices(gang: Gang) -> tuple[int, ...]:
    """The numbers of the ranks, in the order of their places in the group."""
    return tuple(number for number, _ in gang.active)


def shard_owners(gang: Gang, step: int) -> tuple[int, ...]:
    """The ranks, then and now, whose shards make up a step."""
    indices = member_indices(gang)
    return layout_at(gang.shard_layouts, step, indices).ranks if gang.is_sharded else indices


def departed(gang: Gang) -> tuple[int, ...]:
    """Ranks that have left, and whose shards make up a step that may be gone on from."""
    steps = {at for _, rank in gang.active for step in rank.steps for at in (step, step - 1)}
    steps |= {
        cut.after for cut in gang.shard_layouts[-1:]
    }  # where none of them has a step of its own yet
    found = {n for step in steps if step >= 0 for n in shard_owners(gang, step)}
    return tuple(
        sorted(n for n in found - set(member_indices(gang)) if not _replicas_dropped(gang, n))
    )


def _replicas_dropped(gang: Gang, number: int) -> bool:
    return number >= len(gang.ranks) or gang.ranks[number].replicas_dropped


def common_step(gang: Gang) -> int:
    """The newest step that all can restore, and that somebody holds all of."""
    if gang.is_sharded:
        steps = {step for _, rank in gang.active for step in rank.steps}
        told = [rank.shards_found or {} for _, rank in gang.active]
        steps |= {step for found in told for kept in found.values() for step in kept}
        return max((step for step in steps if all_can_restore(gang, step)), default=0)
    knowing = [rank for _, rank in gang.active if not rank.joining] or [
        rank for _, rank in gang.active if any(rank.steps)
    ]
    common = set.intersection(*(set(rank.steps) for rank in knowing)) if knowing else set()
    whole = {step for step in common if any(not _needs_another(rank, step) for rank in knowing)}
    return max(whole, default=0)


def all_can_restore(gang: Gang, step: int) -> bool:
    """Whether every rank of a sharded gang can restore a step."""
    return all(_can_restore(gang, rank, step) for _, rank in gang.active)


def _can_restore(gang: Gang, rank: Rank, step: int) -> bool:
    """Whether a rank of a sharded gang can restore a step: its own shard, or all pieces of it."""
    pieces = shard_owners(gang, step)
    if pieces == member_indices(gang) or is_stored(gang, step):
        return step in rank.steps
    return all(_shard_available(gang, number, step) for number in pieces)


def is_stored(gang: Gang, step: int) -> bool:
    """Whether each has a stored checkpoint of it, which says itself how it was split."""
    return all(source_of(rank, step) == "storage" for _, rank in gang.active)


def _shard_available(gang: Gang, number: int, step: int) -> bool:
    """Whether a rank's shard of a step can be had by the others."""
    rank = gang.ranks[number] if number < len(gang.ranks) else None
    if rank is None or rank.retired:
        born = layout_at(gang.shard_layouts, step, ()).created_generation
        told = [(other.shards_found or {}).get(number, {}) for _, other in gang.active]
        return all(steps.get(step, -1) >= born for steps in told)
    return step in rank.steps and source_of(rank, step) in ("shm", "peer")


def _needs_another(rank: Rank, step: int) -> bool:
    is_new = rank.joining and step not in rank.steps
    return is_new or rank.state_corrupt or source_of(rank, step) == "replica"


def needs_state(gang: Gang, rank: Rank, step: int) -> bool:
    """Whether another rank has to tell it what all have in common."""
    return step not in rank.steps if gang.is_sharded else _needs_another(rank, step)


def source_of(rank: Rank, step: int) -> str:
    """Where a rank would take a step from."""
    return rank.sources[rank.steps.index(step)] if step in rank.steps else SOURCES[-1]


def farthest_source(gang: Gang, lost: tuple[int, ...], step: int) -> str:
    """The farthest place from which a step comes for the ranks that were lost."""
    pieces, now = shard_owners(gang, step), member_indices(gang)
    asked = [rank for n, rank in gang.active if n in lost] or [gang.active[0][1]]
    own = [source_of(rank, step) for rank in asked if step in rank.steps or pieces == now]
    others = ["peer"] if set(pieces) - set(now) and not is_stored(gang, step) else []
    return max([*own, *others] or ["shm"], key=SOURCES.index)
