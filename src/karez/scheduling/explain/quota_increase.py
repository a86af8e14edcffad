"""Quota increases that would admit a pending workload, and the command that makes them."""

from collections import Counter
from dataclasses import replace

from karez.core.devices import DeviceKind
from karez.core.explanations import SuggestedChange
from karez.core.gangs import GangSpec
from karez.core.identity import Project
from karez.core.resource_syntax import write_amount
from karez.scheduling.explain.suggestion_trial import SuggestionContext
from karez.scheduling.queue.quota import share_of, within_quota


def quota_increase(context: SuggestionContext) -> SuggestedChange:
    """The smallest limits that admit a gang's first alternatives; no change if quota admits it."""
    waiting, cluster = context.waiting, context.engine.cluster
    _, barred = within_quota(waiting, cluster.projects, cluster.used)
    if not barred:
        return SuggestedChange(what="")
    caps, guarantees = {}, {}
    for kind, amount in wanted_amounts(waiting.gang).items():
        share = share_of(waiting.project, kind, cluster.projects, cluster.used)
        if share.room is None or share.room >= amount:
            continue
        guarantee = None
        if share.guarantee is not None:
            guarantee = guarantees[kind] = _guarantee(context, kind, amount)
        if share.cap is not None:
            caps[kind] = max(share.cap, share.held + amount, guarantee or 0)
    return SuggestedChange(what="", quota=caps, guarantee=guarantees)


def wanted_amounts(gang: GangSpec) -> Counter[DeviceKind]:
    """Amount of each kind that the smallest gang takes, by its first alternatives."""
    wanted: Counter[DeviceKind] = Counter()
    for need, workers in [(gang.each[0], gang.min), *((r.each[0], r.workers) for r in gang.roles)]:
        for kind, amount in need.amounts.items():
            wanted[kind] += amount * workers
    return wanted


def _guarantee(context: SuggestionContext, kind: DeviceKind, wanted: int) -> int:
    """The smallest guarantee with which the project may hold the wanted amount."""
    cluster = context.engine.cluster
    project = cluster.projects[context.waiting.project]
    low = project.guarantee.get(kind, 0)
    high = low + wanted + sum(amount for (_, k), amount in cluster.used.items() if k == kind)
    uncapped = {k: amount for k, amount in project.quota.items() if k != kind}
    while low < high:
        middle = (low + high) // 2
        guarantee = {**project.guarantee, kind: middle}
        after = replace(project, quota=uncapped, guarantee=guarantee)
        room = share_of(project.name, kind, {**cluster.projects, project.name: after}, cluster.used)
        if room.room is None or room.room >= wanted:
            high = middle
        else:
            low = middle + 1
    return high


def quota_command(project: Project) -> str:
    """The command that sets all limits of a project: a kind that is not named would have none."""
    words = [f"{kind}={write_amount(kind, amount)}" for kind, amount in project.quota.items()]
    if project.cohort:
        words.append(f"--cohort {project.cohort}")
    for option, limits in (("guarantee", project.guarantee), ("lend", project.lend)):
        words += [f"--{option} {kind}={write_amount(kind, n)}" for kind, n in limits.items()]
    if project.weight != 1:
        words.append(f"--weight {project.weight}")
    return " ".join(["karez projects quota", project.name, *words])
