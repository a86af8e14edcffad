"""Chooses the step that a gang continues from, and tells which rank has which part of it. Pure."""

from karez.training.recovery.shard_layouts import layout_at
from karez.training.recovery.state import SOURCES, Gang, Rank, RankPhase


def member_indices(gang: Gang) -> tuple[int, ...]:
    """The numbers of the active ranks, in the order of their positions in the group."""
    return tuple(number for number, _ in gang.active)


def shard_owners(gang: Gang, step: int) -> tuple[int, ...]:
    """Former and present ranks whose shards make up a step."""
    indices = member_indices(gang)
    return layout_at(gang.shard_layouts, step, indices).ranks if gang.is_sharded else indices


def departed(gang: Gang) -> tuple[int, ...]:
    """Ranks that have left, and whose shards make up a step that the gang may continue from."""
    steps = {at for _, rank in gang.active for step in rank.steps for at in (step, step - 1)}
    # of a gang in which no rank has a step of its own yet
    steps |= {layout.after for layout in gang.shard_layouts[-1:]}
    owners = {n for step in steps if step >= 0 for n in shard_owners(gang, step)}
    absent = owners - set(member_indices(gang))
    return tuple(sorted(n for n in absent if not _replicas_dropped(gang, n)))


def _replicas_dropped(gang: Gang, number: int) -> bool:
    return number >= len(gang.ranks) or gang.ranks[number].phase == RankPhase.FORGOTTEN


def common_step(gang: Gang) -> int:
    """The newest step that all ranks can restore, and of which some rank has all of the state."""
    if gang.is_sharded:
        steps = {step for _, rank in gang.active for step in rank.steps}
        answers = [rank.shards_found or {} for _, rank in gang.active]
        steps |= {step for shards in answers for by_step in shards.values() for step in by_step}
        return max((step for step in steps if all_can_restore(gang, step)), default=0)
    with_state = [rank for _, rank in gang.active if not rank.joining] or [
        rank for _, rank in gang.active if any(rank.steps)
    ]
    common = set.intersection(*(set(rank.steps) for rank in with_state)) if with_state else set()
    complete = {
        step for step in common if any(not _needs_another(rank, step) for rank in with_state)
    }
    return max(complete, default=0)


def all_can_restore(gang: Gang, step: int) -> bool:
    """Whether every rank of a sharded gang can restore a step."""
    return all(_can_restore(gang, rank, step) for _, rank in gang.active)


def _can_restore(gang: Gang, rank: Rank, step: int) -> bool:
    """Whether a rank of a sharded gang can restore a step: its own shard, or all shards of it."""
    owners = shard_owners(gang, step)
    if owners == member_indices(gang) or is_stored(gang, step):
        return step in rank.steps
    return all(_shard_available(gang, number, step) for number in owners)


def is_stored(gang: Gang, step: int) -> bool:
    """Whether every rank restores a step from a stored checkpoint, which records its layout."""
    return all(source_of(rank, step) == "storage" for _, rank in gang.active)


def _shard_available(gang: Gang, number: int, step: int) -> bool:
    """Whether other ranks can fetch a rank's shard of a step."""
    rank = gang.ranks[number] if number < len(gang.ranks) else None
    if rank is None or rank.has_left:
        oldest = layout_at(gang.shard_layouts, step, ()).created_generation
        answers = [(peer.shards_found or {}).get(number, {}) for _, peer in gang.active]
        return all(steps.get(step, -1) >= oldest for steps in answers)
    return step in rank.steps and source_of(rank, step) in ("shm", "peer")


def _needs_another(rank: Rank, step: int) -> bool:
    is_new = rank.joining and step not in rank.steps
    return is_new or rank.state_corrupt or source_of(rank, step) == "replica"


def needs_state(gang: Gang, rank: Rank, step: int) -> bool:
    """Whether another rank must send this rank the state that all have in common."""
    return step not in rank.steps if gang.is_sharded else _needs_another(rank, step)


def source_of(rank: Rank, step: int) -> str:
    """The source that a rank would restore a step from."""
    return rank.sources[rank.steps.index(step)] if step in rank.steps else SOURCES[-1]


def farthest_source(gang: Gang, lost: tuple[int, ...], step: int) -> str:
    """The farthest source from which a step is restored for the lost ranks."""
    owners, members = shard_owners(gang, step), member_indices(gang)
    ranks = [rank for n, rank in gang.active if n in lost] or [gang.active[0][1]]
    own = [source_of(rank, step) for rank in ranks if step in rank.steps or owners == members]
    others = ["peer"] if set(owners) - set(members) and not is_stored(gang, step) else []
    return max([*own, *others] or ["shm"], key=SOURCES.index)
