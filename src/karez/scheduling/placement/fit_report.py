"""Reports on a gang that does not fit: how many workers would, and which nodes are ruled out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from karez.core.devices import DeviceKind
from karez.core.gangs import GangSpec, Topology
from karez.core.resource_requests import ResourceRequest
from karez.scheduling.placement.capacity import AMOUNTS, SLOTS, Bools, Pool
from karez.scheduling.placement.worker_shares import worker_shares


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """How many workers of one alternative fit, and why the other nodes are ruled out."""

    need: ResourceRequest
    workers: int
    """Most workers that fit at once."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """Number of nodes ruled out, by the first reason for each node."""
    having: int = 0
    """Number of nodes with devices of the kind and model."""


def fit_reports(gang: GangSpec, pool: Pool, until: float | None = None) -> tuple[FitReport, ...]:
    """Report on each alternative of the gang, or of the first role that does not fit."""
    reports = tuple(fit_report(gang, need, pool, until) for need in gang.each)
    if all(fit.workers < gang.min for fit in reports):
        return reports
    for role in gang.roles:
        part = GangSpec(min=role.workers, want=role.workers, each=role.each, among=role.among)
        of_role = tuple(fit_report(part, need, pool, until) for need in role.each)
        if all(fit.workers < role.workers for fit in of_role):
            return of_role
    return reports


def fit_report(
    gang: GangSpec, need: ResourceRequest, pool: Pool, until: float | None = None
) -> FitReport:
    """Count the workers of one alternative that fit, and the nodes ruled out."""
    shares = worker_shares(replace(gang, min=1), need, pool, until)
    left: Bools = np.ones(len(pool.nodes), np.bool_)
    having, nodes = left, dict[str, int]()
    for reason, out in _filter_nodes(gang, need, pool, until):
        nodes[reason] = int((left & out).sum())
        left = left & ~out
        if reason.startswith("no "):
            having = having & ~out
    return FitReport(
        need=need,
        workers=0 if shares is None else int(shares.sum()),
        nodes={reason: count for reason, count in nodes.items() if count},
        having=int(having.sum()),
    )


def _filter_nodes(
    gang: GangSpec, need: ResourceRequest, pool: Pool, until: float | None
) -> Iterator[tuple[str, Bools]]:
    """(reason, the nodes that it rules out), lasting reasons first."""
    arrays, shape = pool.inventory.arrays, pool.shape(need)
    allowed = pool.matching(gang.among)
    if allowed is not None:
        yield f"not {gang.among.show()}", ~allowed
    yield from _filter_by_kind(need, pool)
    for column, kind in enumerate(AMOUNTS):
        if amount := shape.bulk[column]:
            few = f"too few free {kind}" if kind == DeviceKind.CPU else f"too little free {kind}"
            yield few, arrays.bulk[:, column] < amount
    usable = pool.usable(gang.among, until)
    if usable is not None:
        yield "maintenance before it would end", ~usable


def _filter_by_kind(need: ResourceRequest, pool: Pool) -> Iterator[tuple[str, Bools]]:
    inventory, kind = pool.inventory, need.kind
    if kind not in SLOTS:
        yield f"no {kind} devices", inventory.bulk_size[:, AMOUNTS.index(kind)] == 0
        return
    model = inventory.arrays.model
    of_kind = (inventory.size > 0) & ((pool.masks.get(kind, 0) >> model) & 1 == 1)
    yield f"no {kind} devices", ~of_kind.any(1)
    if need.models:
        right = of_kind & ((pool.shape(need).models >> model) & 1 == 1)
        yield f"no {kind} of model {' or '.join(need.models)}", ~right.any(1)
    bare = ResourceRequest(kind=kind, milli=need.milli, models=need.models)
    yield f"too few free {kind}", pool.room(bare) == 0


def explain_unplaced(gang: GangSpec, pool: Pool, until: float | None = None) -> str:
    """Explain why a gang does not fit in a pool as it is."""
    reports = fit_reports(gang, pool, until)
    parts = [_summary(gang.min, fit) for fit in reports]
    unavailable = ", ".join(f"{count} {state}" for state, count in sorted(pool.unavailable.items()))
    reason = "; or ".join(parts) + (f"; nodes out of use: {unavailable}" if unavailable else "")
    if gang.topology in (Topology.SPREAD, Topology.REQUIRE_SUPERNODE):
        reason += f"; topology is {gang.topology}"
    if gang.roles and any(fit.workers >= gang.min for fit in reports):
        reason += "; not all of its roles fit at once"
    return reason


def _summary(workers: int, fit: FitReport) -> str:
    if not fit.having:
        model = f" of model {' or '.join(fit.need.models)}" if fit.need.models else ""
        return f"no node has {fit.need.kind} devices{model}"
    out = [f"{count} {why}" for why, count in fit.nodes.items() if not why.startswith("no ")]
    summary = f"{fit.workers} of {workers} workers fit ({fit.need.show()} each"
    return summary + (f"; nodes ruled out: {', '.join(out)})" if out else ")")
