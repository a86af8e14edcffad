"""What always holds of a gang, and of each of its transitions. Tests check it. Pure."""

from collections.abc import Iterator

from karez.training.recovery.state import NOWHERE, Gang, Phase, Rank, RankPhase

_ORDER = {phase: number for number, phase in enumerate(RankPhase)}
_OF_QUIESCING = frozenset({RankPhase.QUERIED, RankPhase.QUIESCED})
_OF_GENERATION = frozenset({RankPhase.RESTORING, RankPhase.TRAINING, RankPhase.FINISHED})
_FORMING = frozenset({Phase.QUIESCING, Phase.PLACING})
_FORMED = frozenset({Phase.RESUMING, Phase.RUNNING})
_WITHOUT_NODE = frozenset({Phase.PLACING, Phase.FAILED})


def violations(gang: Gang) -> list[str]:
    """What does not hold of a gang though it must; empty: all is well."""
    return [*_of_gang(gang), *(text for n, rank in gang.active for text in _of_rank(gang, n, rank))]


def transition_violations(before: Gang, after: Gang) -> list[str]:
    """What a transition must not have done."""
    found = [
        f"{name} went back from {old} to {new}"
        for name, old, new in (
            ("the generation", before.generation, after.generation),
            ("the committed step", before.max_committed_step, after.max_committed_step),
            ("the number of ranks", len(before.ranks), len(after.ranks)),
        )
        if new < old
    ]
    for number, (old_rank, new_rank) in enumerate(zip(before.ranks, after.ranks, strict=False)):
        is_same = before.generation == after.generation
        if not _may_follow(old_rank, new_rank, is_same_generation=is_same):
            found.append(
                f"rank {number} went from {old_rank.phase} to {new_rank.phase},"
                f" attempt {old_rank.attempt} to {new_rank.attempt}"
            )
    return found


def _of_gang(gang: Gang) -> Iterator[str]:
    phases = {rank.phase for _, rank in gang.active}
    homeless = [n for n, rank in gang.active if rank.node == NOWHERE]
    if not phases:
        yield "no rank is left"
    if gang.phase in _FORMED and gang.is_session and phases - _OF_GENERATION:
        yield f"it is {gang.phase} with ranks that are {sorted(phases - _OF_GENERATION)}"
    if gang.phase == Phase.QUIESCING and gang.all_in(RankPhase.QUIESCED):
        yield "every rank is quiesced, and the generation has not started"
    if gang.phase == Phase.PLACING and not homeless:
        yield "it looks for nodes, and every rank has one"
    if gang.phase == Phase.DONE and phases != {RankPhase.EXITED}:
        yield "it is done before every rank has exited"
    if gang.phase in (Phase.RUNNING, Phase.DRAINING, Phase.DONE) and gang.fault is not None:
        yield f"it is {gang.phase} and still recovers from a fault"
    if gang.phase == Phase.PLACING and gang.fault is None:
        yield "it looks for nodes without a fault"


def _of_rank(gang: Gang, number: int, rank: Rank) -> Iterator[str]:
    ended = gang.phase == Phase.FAILED
    if rank.node == NOWHERE and (rank.phase != RankPhase.ABSENT or gang.phase not in _WITHOUT_NODE):
        yield f"rank {number} is {rank.phase} without a node"
    if rank.phase in _OF_QUIESCING and not (gang.phase in _FORMING or ended):
        yield f"rank {number} is {rank.phase} in a gang that is {gang.phase}"
    if rank.phase in _OF_GENERATION and gang.phase in _FORMING:
        yield f"rank {number} is {rank.phase} in a gang that is {gang.phase}"
    if len(rank.steps) != len(rank.sources) or list(rank.steps) != sorted(rank.steps):
        yield f"rank {number} has the steps {rank.steps} with the sources {rank.sources}"
    if gang.phase in _FORMED and gang.is_session and rank.committed < gang.restore_step:
        yield f"rank {number} is at step {rank.committed}, before {gang.restore_step}"


def _may_follow(old: Rank, new: Rank, *, is_same_generation: bool) -> bool:
    """Whether a rank may be so after a transition: within a generation it goes forward."""
    if old.has_left:
        return new.has_left and _ORDER[new.phase] >= _ORDER[old.phase]
    if new.attempt != old.attempt:
        return new.attempt == old.attempt + 1 and new.phase == RankPhase.ABSENT
    if old.phase == RankPhase.EXITED:
        return new.phase == RankPhase.EXITED or new.has_left
    if not is_same_generation or new.node == NOWHERE:
        return new.phase != RankPhase.STARTED or _ORDER[old.phase] <= _ORDER[new.phase]
    is_asked = (old.phase, new.phase) == (RankPhase.QUIESCED, RankPhase.QUERIED)
    return is_asked or _ORDER[new.phase] >= _ORDER[old.phase]
