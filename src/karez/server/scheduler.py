"""The scheduling loop: look, decide, record."""

from collections.abc import Mapping
from dataclasses import replace

from karez.core.ports import Clock
from karez.core.reasons import Outlook, WhatIf, Why
from karez.core.resources import Grant, Need, NodeId
from karez.core.stores import Store
from karez.core.workloads import GangSpec, Job, Service, State, WorkloadId
from karez.scheduling.desk import Preempt, Start, Wait
from karez.scheduling.explain import explain
from karez.scheduling.line import Rules, Waiting
from karez.scheduling.place import extend
from karez.scheduling.plan import Running, Snapshot, plan
from karez.scheduling.pool import free_pool
from karez.scheduling.whatif import what_if

MOST_WAITING = 1_000_000
MANY = 20
"""Unknown specs beyond which one query for all is cheaper than one for each."""


class Scheduler:
    """One pass at a time. Specs never change, so each is read from the store once."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Nothing is known yet."""
        self._store = store
        self._clock = clock
        self._specs: dict[WorkloadId, Waiting] = {}
        self._reasons: dict[WorkloadId, str] = {}

    def tick(self) -> int:
        """Start what fits, explain what waits; how many were started."""
        queued = self._store.workloads.queued()
        if not queued:
            self._specs.clear()
            return 0
        now = self._clock.now()
        self._reasons = {ident: reason for ident, _, reason in queued}
        if len(queued) - len(self._specs) > MANY:
            self._read_all({ident: order for order, (ident, _, _) in enumerate(queued)})
        waiting = [
            found if found.order == order else replace(found, order=order)
            for order, (ident, sort, _) in enumerate(queued)
            if (found := self._waiting(ident, sort)) is not None
        ]
        self._specs = {found.id: found for found in waiting}
        snapshot = self._snapshot(waiting)
        decisions = plan(snapshot, now=now, rules=Rules(preempts=self._may_preempt()))
        makes_room = {d.by: d.id for d in decisions if isinstance(d, Preempt)}
        started, reasons = 0, {}
        for decision in decisions:
            match decision:
                case Preempt(id=ident):
                    self._store.workloads.request_yield(ident)
                case Start(id=ident) if ident in makes_room:
                    why = f"{makes_room[ident]} is making room for it"
                    if self._reasons.get(ident) != why:
                        reasons[ident] = why
                case Start(id=ident, grants=grants):
                    started += self._store.workloads.place(ident, grants, now=now) is not None
                case Wait(id=ident, reason=reason) if self._reasons.get(ident) != reason:
                    reasons[ident] = reason
                case _:
                    pass
        self._store.workloads.explain(reasons)
        return started

    def find(self, need: Need, count: int, avoid: frozenset[NodeId]) -> tuple[Grant, ...]:
        """Free devices right now for more workers of something that runs already."""
        held = [
            g
            for allocation in self._store.workloads.allocations().values()
            for g in allocation.grants
        ]
        return extend(need, count, free_pool(self._store.pool.nodes(), held), avoid=avoid)

    def explain(self, ident: WorkloadId) -> Why | None:
        """Why a workload waits; None if it does not, or starts with the next pass."""
        return explain(self._whole(), ident, now=self._clock.now())

    def what_if(self, question: WhatIf) -> Outlook:
        """What a change would do. Raises NotFound."""
        return what_if(self._whole(), question, now=self._clock.now())

    def _whole(self) -> Snapshot:
        """The cloud as the store has it."""
        waits = (State.QUEUED,)
        items: list[Job | Service] = [
            *self._store.workloads.jobs(projects=None, states=waits, limit=MOST_WAITING),
            *self._store.workloads.services(projects=None, states=waits),
        ]
        line = sorted((_as_waiting(item) for item in items), key=lambda one: (one.since, one.id))
        waiting = [replace(one, order=order) for order, one in enumerate(line)]
        return self._snapshot(waiting)

    def _may_preempt(self) -> bool:
        """One at a time: while somebody makes room, nobody else is asked to."""
        count = self._store.workloads.count_states()
        return not any(count.get((sort, State.YIELDING)) for sort in ("job", "service"))

    def _snapshot(self, waiting: list[Waiting]) -> Snapshot:
        running = []
        for ident, allocation in self._store.workloads.allocations().items():
            item: Job | Service | None = self._store.workloads.job(
                ident
            ) or self._store.workloads.service(ident)
            if item is None:
                continue
            ends_by = None
            if isinstance(item, Job):
                runs_s = item.spec.expected_duration_s or item.spec.max_duration_s
                began_at = item.started_at or allocation.since
                ends_by = began_at + runs_s if runs_s else None
            stops = isinstance(item, Job) and item.spec.preemptible
            running.append(
                Running(
                    allocation=allocation,
                    project=item.spec.project,
                    ends_by=ends_by,
                    waiting=_as_waiting(item) if stops else None,
                )
            )
        projects = {project.name: project for project in self._store.people.projects()}
        return Snapshot(
            nodes=self._store.pool.nodes(), waiting=waiting, running=running, projects=projects
        )

    def _read_all(self, orders: Mapping[WorkloadId, int]) -> None:
        """Everything that waits in two queries: after a start, or when many came at once."""
        waits = (State.QUEUED,)
        items: list[Job | Service] = [
            *self._store.workloads.jobs(projects=None, states=waits, limit=MOST_WAITING),
            *self._store.workloads.services(projects=None, states=waits),
        ]
        self._specs = {item.id: _as_waiting(item, orders.get(item.id, 0)) for item in items}

    def _waiting(self, ident: WorkloadId, sort: str) -> Waiting | None:
        if ident not in self._specs:
            item = (
                self._store.workloads.job(ident)
                if sort == "job"
                else self._store.workloads.service(ident)
            )
            if item is None:
                return None
            self._specs[ident] = _as_waiting(item)
        return self._specs[ident]


def _as_waiting(item: Job | Service, order: int = 0) -> Waiting:
    if isinstance(item, Job):
        gang, max_duration_s = item.spec.gang, item.spec.max_duration_s
        expected_s, preemptible = item.spec.expected_duration_s, item.spec.preemptible
    else:
        replicas = item.spec.replicas
        gang = GangSpec(min=replicas, want=replicas, each=item.spec.each)
        max_duration_s, expected_s, preemptible = None, None, False
    return Waiting(
        id=item.id,
        project=item.spec.project,
        gang=gang,
        priority=item.spec.priority,
        since=item.created_at,
        order=order,
        max_duration_s=max_duration_s,
        expected_s=expected_s,
        done_s=item.status.ran_s,
        preemptible=preemptible,
    )
