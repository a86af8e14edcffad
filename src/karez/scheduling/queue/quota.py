"""Quotas: what a project may still hold, by its cap, its guarantee and what its cohort lends.

The terms are Kueue's and Volcano's: projects of a cohort lend each other the unused part
of their guarantees, up to a lending limit; no project holds more than its cap.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from karez.core.devices import DeviceKind
from karez.core.gangs import GangRole, GangSpec
from karez.core.grants import Grant
from karez.core.identity import Project
from karez.core.resource_requests import ResourceRequest
from karez.core.resource_syntax import show_amount
from karez.scheduling.queue.order import PendingWorkload

Used = Mapping[tuple[str, DeviceKind], int]
"""(project, kind) -> amount held, in the kind's unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Use and limits of a project for one kind, in the kind's unit; None: no limit."""

    held: int
    cap: int | None
    guarantee: int | None
    """None without a cohort, or where no project of the cohort has a guarantee for the kind."""
    room: int | None
    """Amount that the project may still take."""


def share_of(name: str, kind: DeviceKind, projects: Mapping[str, Project], used: Used) -> Share:
    """Compute a project's share of one kind. An unknown project has no limits."""
    project = projects.get(name)
    held = used.get((name, kind), 0)
    if project is None:
        return Share(held=held, cap=None, guarantee=None, room=None)
    cap = project.quota.get(kind)
    rooms = [] if cap is None else [cap - held]
    others = [p for p in projects.values() if project.cohort and p.cohort == project.cohort]
    guarantee = None
    if any(kind in other.guarantee for other in others):
        guarantee = project.guarantee.get(kind, 0)
        rooms.append(_from_cohort(project, kind, others, used))
    return Share(held=held, cap=cap, guarantee=guarantee, room=min(rooms) if rooms else None)


def _from_cohort(project: Project, kind: DeviceKind, others: Sequence[Project], used: Used) -> int:
    """Amount left of the project's own reserve and of what the whole cohort lends."""
    own = max(0, _reserve(project, kind) - used.get((project.name, kind), 0))
    return own + max(0, _spare(kind, others, used))


def _spare(kind: DeviceKind, others: Sequence[Project], used: Used) -> int:
    """Amount that a cohort lends and nobody has; negative if more is lent than its limits allow."""
    lent = sum(_lendable(other, kind) for other in others)
    taken = sum(max(0, used.get((p.name, kind), 0) - _reserve(p, kind)) for p in others)
    return lent - taken


def _lendable(project: Project, kind: DeviceKind) -> int:
    guarantee = project.guarantee.get(kind, 0)
    return min(guarantee, project.lend.get(kind, guarantee))


def _reserve(project: Project, kind: DeviceKind) -> int:
    """Amount that a project never lends."""
    return project.guarantee.get(kind, 0) - _lendable(project, kind)


def is_within(name: str, kind: DeviceKind, projects: Mapping[str, Project], used: Used) -> bool:
    """Whether a project's cap and its cohort's lending limits hold for a kind."""
    project = projects.get(name)
    if project is None:
        return True
    if used.get((name, kind), 0) > project.quota.get(kind, 1 << 62):
        return False
    others = [p for p in projects.values() if project.cohort and p.cohort == project.cohort]
    if not any(kind in other.guarantee for other in others):
        return True
    return _spare(kind, others, used) >= 0


def within_quota(
    waiting: PendingWorkload, projects: Mapping[str, Project], used: Used
) -> tuple[GangSpec, str]:
    """Reduce a gang to what its project may still hold, or explain why nothing is left.

    A gang whose wanted size is over the quota is offered fewer workers, down to its minimum.
    """
    gang = waiting.gang
    kinds = {
        kind
        for each in (gang.each, *(r.each for r in gang.roles))
        for need in each
        for kind in need.amounts
    }
    shares = {kind: share_of(waiting.project, kind, projects, used) for kind in sorted(kinds)}
    left = {kind: share.room for kind, share in shares.items() if share.room is not None}
    if not left:
        return gang, ""
    roles: list[GangRole] = []
    for role in gang.roles:
        reduced = _take_role(role, left)
        if reduced is None:
            return gang, _shortage(waiting.project, role.each[0], role.workers, shares)
        roles.append(reduced)
    rooms = [(min(gang.want + gang.spares, _max_workers(need, left)), need) for need in gang.each]
    allowed = [(room, need) for room, need in rooms if room >= gang.min]
    if not allowed:
        shortages = [_shortage(waiting.project, need, gang.min, shares) for need in gang.each]
        return gang, "; or ".join(shortages)
    room = min(room for room, _ in allowed)  # enough for whichever alternative is chosen
    want = min(gang.want, room)
    each = tuple(need for _, need in allowed)
    spares = min(gang.spares, room - want)
    return replace(
        gang,
        each=each,
        want=want,
        roles=tuple(roles),
        spares=spares,
        max=max(want, gang.most),
    ), ""


def _take_role(role: GangRole, left: dict[DeviceKind, int]) -> GangRole | None:
    """Subtract a role's first alternative that `left` suffices for; None if none does."""
    for need in role.each:
        if _max_workers(need, left) >= role.workers:
            for kind, amount in need.amounts.items():
                if kind in left:
                    left[kind] -= amount * role.workers
            return replace(role, each=(need,))
    return None


def more_workers(
    project: str, need: ResourceRequest, count: int, projects: Mapping[str, Project], used: Used
) -> int:
    """Return how many of `count` more workers a project may have."""
    rooms = {kind: share_of(project, kind, projects, used).room for kind in need.amounts}
    return min(
        count, _max_workers(need, {k: room for k, room in rooms.items() if room is not None})
    )


def _max_workers(need: ResourceRequest, left: Mapping[DeviceKind, int]) -> int:
    """Number of workers of a need that `left` suffices for; very large if there is no limit."""
    rooms = (left[kind] // amount for kind, amount in need.amounts.items() if kind in left)
    return min(rooms, default=1 << 40)


def _shortage(
    project: str, need: ResourceRequest, workers: int, shares: Mapping[DeviceKind, Share]
) -> str:
    """Name the kind that is short, with its amounts."""
    for kind, amount in need.amounts.items():
        share, asked = shares[kind], amount * workers
        if share.room is None or share.room >= asked:
            continue
        more = f"{show_amount(kind, asked)} more asked"
        held = show_amount(kind, share.held)
        if share.cap is not None and share.cap - share.held < asked:
            cap = show_amount(kind, share.cap)
            return f"quota of project {project}: {held} of {cap} {kind} held, {more}"
        return (
            f"quota of project {project}: {held} {kind} held, "
            f"{show_amount(kind, share.guarantee or 0)} guaranteed, "
            f"{show_amount(kind, share.room)} left with what its cohort lends, {more}"
        )
    return f"quota of project {project}: its roles and workers together are more than it may hold"


def charge(
    used: dict[tuple[str, DeviceKind], int], project: str, grants: Iterable[Grant], sign: int
) -> None:
    """Add grants to a project's usage (sign 1), or subtract them (sign -1)."""
    for grant in grants:
        for kind, amount in grant.amounts.items():
            used[project, kind] = used.get((project, kind), 0) + sign * amount
