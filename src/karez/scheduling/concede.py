"""What could make room for a workload, what that would cost, and whether it is worth it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from karez.core.resources import DeviceKind, Grant, Need
from karez.core.workloads import WorkloadId
from karez.scheduling.floor import Floor, Run
from karez.scheduling.line import AGE_S, Rank, Rules, Waiting
from karez.scheduling.place import fits, seat
from karez.scheduling.pool import SLOTS
from karez.scheduling.quota import is_within, share_of, within_quota


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """Something that runs could give up these grants."""

    run: Run
    gives: tuple[Grant, ...]
    is_stop: bool
    """Else it goes on with fewer workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a workload gets, and what each of the others keeps for it: nothing, or fewer workers."""

    grants: tuple[Grant, ...]
    keeps: dict[WorkloadId, tuple[Grant, ...]]


def options(floor: Floor, waiting: Waiting, rules: Rules, now: float) -> list[Option]:
    """What may be taken for this workload: what others only grew into, then who is furthest back.

    Whoever is stopped would come later in line by a whole doubling, or has a lower priority; and
    has longer to go than the newcomer, by more than the stop costs.
    """
    found = [
        Option(run=run, gives=tuple(more), is_stop=False)
        for run in sorted((floor.running[i] for i in floor.elastic), key=lambda run: run.id)
        if rules.elastic and run.id not in floor.fresh and (more := _above(run, wanted=True))
    ]
    priority, place_in_line, _, _ = floor.rank(waiting, rules)
    behind: list[tuple[Rank, Run]] = []
    for run in floor.running.values():
        if run.waiting is None or not (run.can_stop or rules.elastic) or run.id in floor.fresh:
            continue
        done_s = run.done_s(now)
        rank = floor.rank(run.waiting, rules, done_s)
        is_behind = rank[0] > priority or rank[1] > place_in_line + AGE_S
        gain_s = run.waiting.left_s(done_s) - waiting.left_s(waiting.done_s)
        pays = gain_s > run.stop_s(now) or rank[0] > priority
        if rank[0] >= priority and is_behind and pays:
            behind.append((rank, run))
    behind.sort(key=lambda pair: pair[0], reverse=True)
    for _, run in behind:
        over = _above(run, wanted=True) if rules.elastic else []
        more = _above(run, wanted=False) if rules.elastic else []
        less = [grant for grant in more if not _is_in(grant, over)]
        if less:
            found.append(Option(run=run, gives=tuple(less), is_stop=False))
        if run.can_stop and rules.preempts:
            rest = tuple(grant for grant in run.grants if not _is_in(grant, more))
            found.append(Option(run=run, gives=rest, is_stop=True))
    return found if _could_do(floor, waiting, found) else []


def _above(run: Run, *, wanted: bool) -> list[Grant]:
    """Its last workers, beyond what it wants or beyond the fewest it goes on with."""
    if run.waiting is None or run.waiting.gang.max is None:
        return []  # only who says how large it may grow changes its size while it runs
    gang = run.waiting.gang
    workers = run.workers
    return list(workers[gang.want if wanted else gang.min :])


def _is_in(grant: Grant, grants: Sequence[Grant]) -> bool:
    return any(grant is other for other in grants)


def _could_do(floor: Floor, waiting: Waiting, found: Sequence[Option]) -> bool:
    """Whether all of it together could be enough: a look that costs little."""
    gang = waiting.gang
    if not found or not all(need.kind in SLOTS for need in gang.each):
        return bool(found)
    least = min(need.milli for need in gang.each) * gang.min
    gives = sum(grant.milli for option in found for grant in option.gives)
    return floor.pool.inventory.free_milli + gives >= least


def borrowers(floor: Floor, waiting: Waiting, now: float) -> list[Option]:
    """Who holds what this workload's project lent: the cheapest to stop first.

    A guarantee is a right: what it costs the borrower is not weighed against the owner's gain.
    """
    owner = floor.projects.get(waiting.project)
    kinds = {kind for need in waiting.gang.each for kind in need.amounts}
    if owner is None:
        return []
    found = []
    for run in floor.running.values():
        other = floor.projects.get(run.project)
        if other is None or other.cohort != owner.cohort or run.project == owner.name:
            continue
        over = any(
            floor.used.get((run.project, kind), 0) > other.guarantee.get(kind, 0)
            and any(kind in grant.amounts for grant in run.grants)
            for kind in kinds
        )
        if over and run.can_stop and run.id not in floor.fresh:
            found.append(Option(run=run, gives=run.grants, is_stop=True))
    return sorted(found, key=lambda option: (option.run.price(now), option.run.id))


def owed(floor: Floor, waiting: Waiting) -> Waiting | None:
    """The workload with only what its project's guarantee entitles it to; None: to nothing.

    So whoever takes back what it lent never becomes a borrower by that.
    """
    found: list[tuple[int, Need]] = []
    for need in waiting.gang.each:
        rooms = []
        for kind, amount in need.amounts.items():
            share = share_of(waiting.project, kind, floor.projects, floor.used)
            if share.guarantee:
                rooms.append((share.guarantee - share.held) // amount)
        if rooms and min(rooms) >= waiting.gang.min:
            found.append((min(rooms), need))
    if not found:
        return None
    want = min(waiting.gang.want, *(room for room, _ in found))
    each = tuple(need for _, need in found)
    return replace(waiting, gang=replace(waiting.gang, each=each, want=want, spares=0))


def make_room(
    floor: Floor, waiting: Waiting, found: Iterable[Option], until: float | None, now: float
) -> Room | None:
    """Take option by option until the workload has its places; then give back what is not needed.

    None, and nothing changed, if all together is not enough.
    """
    pool, used, taken = floor.pool, dict(floor.used), list[Option]()
    grants: tuple[Grant, ...] | None = None
    for option in found:
        pool.give_back(option.gives)
        taken.append(option)
        for grant in option.gives:
            for kind, amount in grant.amounts.items():
                used[option.run.project, kind] -= amount
        gang, barred = within_quota(waiting, floor.projects, used)
        if not barred and fits(gang, pool, until):
            grants = seat(gang, pool, until)
            if grants is not None:
                break
    if grants is None:
        for option in taken:
            pool.hold(option.gives)
        return None
    return Room(grants=grants, keeps=_spare(floor, waiting, taken, grants, now))


def undo(floor: Floor, room: Room) -> None:
    """As it was before room was made."""
    floor.pool.give_back(room.grants)
    for ident, keeps in room.keeps.items():
        run = floor.running[ident]
        floor.pool.hold([grant for grant in run.grants if not _is_in(grant, keeps)])


def _spare(
    floor: Floor, waiting: Waiting, taken: Sequence[Option], grants: Sequence[Grant], now: float
) -> dict[WorkloadId, tuple[Grant, ...]]:
    """Whose devices are not needed after all goes on, the dearest first; what the others keep."""
    pool = floor.pool
    gone: dict[WorkloadId, list[Grant]] = {}
    used = dict(floor.used)
    for grant in grants:
        _book(used, waiting.project, grant, 1)
    for option in taken:
        gone.setdefault(option.run.id, []).extend(option.gives)
        for grant in option.gives:
            _book(used, option.run.project, grant, -1)
    for option in sorted(taken, key=lambda one: (one.is_stop, one.run.price(now)), reverse=True):
        run, lost = option.run, gone[option.run.id]
        stopped = any(one.is_stop and one.run is run for one in taken)
        parts = [tuple(lost)] if stopped else [(grant,) for grant in option.gives]
        for part in parts:
            if part and all(_is_in(g, lost) for g in part) and pool.has(part):
                if not _within(floor, waiting, used, run, part):
                    continue
                pool.hold(part)
                for grant in part:
                    _book(used, run.project, grant, 1)
                lost[:] = [grant for grant in lost if not _is_in(grant, part)]
    return {
        ident: tuple(g for g in floor.running[ident].grants if not _is_in(g, lost))
        for ident, lost in gone.items()
        if lost
    }


def _book(used: dict[tuple[str, DeviceKind], int], project: str, grant: Grant, sign: int) -> None:
    for kind, amount in grant.amounts.items():
        used[project, kind] = used.get((project, kind), 0) + sign * amount


def _within(
    floor: Floor,
    waiting: Waiting,
    used: dict[tuple[str, DeviceKind], int],
    run: Run,
    part: Sequence[Grant],
) -> bool:
    """Whether quotas still hold if a run keeps this after all."""
    after = dict(used)
    for grant in part:
        _book(after, run.project, grant, 1)
    kinds = {kind for grant in part for kind in grant.amounts}
    return all(
        is_within(name, kind, floor.projects, after)
        or not is_within(name, kind, floor.projects, floor.used)  # it was over before
        for name in (run.project, waiting.project)
        for kind in kinds
    )
