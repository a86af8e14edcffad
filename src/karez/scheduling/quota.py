"""What a project may still take: its cap, its guarantee, and what its cohort lends.

The words are Kueue's and Volcano's: projects of a cohort lend each other what of their guarantee
they do not use, up to a lending limit; nobody holds more than its cap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from karez.core.identity import Project
from karez.core.resources import DeviceKind, Need
from karez.core.units import show_devices
from karez.core.workloads import GangSpec
from karez.scheduling.line import Waiting

Used = Mapping[tuple[str, DeviceKind], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A project's standing for one kind, in thousandths of a device; None: no limit."""

    held: int
    cap: int | None
    guarantee: int | None
    """None where it is in no cohort, or nobody there has a guarantee for the kind."""
    room: int | None
    """What it may still take."""


def share_of(name: str, kind: DeviceKind, projects: Mapping[str, Project], used: Used) -> Share:
    """How a project stands. A project that is not known has no limits."""
    project = projects.get(name)
    held = used.get((name, kind), 0)
    if project is None:
        return Share(held=held, cap=None, guarantee=None, room=None)
    cap = project.quota_milli.get(kind)
    rooms = [] if cap is None else [cap - held]
    others = [p for p in projects.values() if project.cohort and p.cohort == project.cohort]
    guarantee = None
    if any(kind in other.guarantee_milli for other in others):
        guarantee = project.guarantee_milli.get(kind, 0)
        rooms.append(_from_cohort(project, kind, others, used))
    return Share(held=held, cap=cap, guarantee=guarantee, room=min(rooms) if rooms else None)


def _from_cohort(project: Project, kind: DeviceKind, others: Sequence[Project], used: Used) -> int:
    """What is left of its own reserve, and of what the whole cohort lends."""
    lent = sum(_lendable(other, kind) for other in others)
    taken = sum(max(0, used.get((p.name, kind), 0) - _reserve(p, kind)) for p in others)
    own = max(0, _reserve(project, kind) - used.get((project.name, kind), 0))
    return own + max(0, lent - taken)


def _lendable(project: Project, kind: DeviceKind) -> int:
    guarantee = project.guarantee_milli.get(kind, 0)
    return min(guarantee, project.lend_milli.get(kind, guarantee))


def _reserve(project: Project, kind: DeviceKind) -> int:
    """What it never lends."""
    return project.guarantee_milli.get(kind, 0) - _lendable(project, kind)


def within_quota(
    waiting: Waiting, projects: Mapping[str, Project], used: Used
) -> tuple[GangSpec, str]:
    """The gang with only the alternatives that its project may still hold, or why there are none.

    A gang whose wanted size is over the quota is offered fewer workers, down to its minimum.
    """
    gang = waiting.gang
    shares = [share_of(waiting.project, need.kind, projects, used) for need in gang.each]
    if all(share.room is None for share in shares):
        return gang, ""
    allowed, reasons, want = [], [], gang.min
    for need, share in zip(gang.each, shares, strict=True):
        room = gang.want if share.room is None else share.room // need.milli
        if room >= gang.min:
            allowed.append(need)
            want = max(want, min(gang.want, room))
        else:
            reasons.append(_say(waiting.project, need, gang.min, share))
    if not allowed:
        return gang, "; or ".join(reasons)
    if len(allowed) > 1 and want < gang.want:
        allowed = allowed[:1]  # one limit cannot hold for two kinds at once
    return replace(gang, each=tuple(allowed), want=want), ""


def _say(project: str, need: Need, workers: int, share: Share) -> str:
    more = f"{show_devices(need.milli * workers)} more asked"
    if share.cap is not None and share.cap - share.held < need.milli * workers:
        cap = show_devices(share.cap)
        return (
            f"quota of project {project}: {show_devices(share.held)} of {cap} {need.kind} "
            f"held, {more}"
        )
    return (
        f"quota of project {project}: {show_devices(share.held)} {need.kind} held, "
        f"{show_devices(share.guarantee or 0)} guaranteed, {show_devices(share.room or 0)} left "
        f"with what its cohort lends, {more}"
    )
