"""The controllers of the active workloads that control has claimed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import structlog

from karez.core.jobs import Job
from karez.core.metrics import QUEUE_TIME
from karez.core.services import Service
from karez.core.workloads import (
    ACTIVE,
    INITIAL_STATUS,
    Allocation,
    EndReason,
    State,
    WorkloadId,
)
from karez.server.controllers.control_context import ControlContext, Edges
from karez.server.controllers.controller_pool import Controller, ControllerPool
from karez.server.controllers.failed_controllers import FailedControllers
from karez.serving.replica_controller import ReplicaController
from karez.training.controller.gang_start import Lease
from karez.training.controller.job_controller import JobController

log = structlog.get_logger()
REQUESTED = (State.STOPPING, State.PREEMPTING)
"""States in which a workload is asked to give up its devices."""
STOP_S = 1.0
"""Seconds that a step may take to end; what it does is safe to cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    controller: Controller
    token: str
    """Of the lease under which it runs."""


class WorkloadControllers:
    """The controllers of jobs and replicas that run in this process."""

    def __init__(
        self, context: ControlContext, owner: str, *, on_ended: Callable[[], None]
    ) -> None:
        """Start without any; `on_ended` is called when a controller has ended."""
        self._context = context
        self._owner = owner
        self._on_ended = on_ended
        self._running: dict[WorkloadId, _Running] = {}
        self._has_ended = False
        self._failures = FailedControllers()
        self.pool = ControllerPool(
            clock=context.clock, metrics=context.metrics, on_ended=self._forget
        )

    def drop_leases(self) -> None:
        """Give up the leases that an earlier process of this owner still has."""
        self._context.store.workloads.drop_leases(self._owner)

    def check(self, edges: Edges) -> bool:
        """Renew leases, and start controllers of what is claimed; returns whether any has ended."""
        workloads, settings = self._context.store.workloads, self._context.settings
        now = self._context.clock.now()
        has_ended, self._has_ended = self._has_ended, False
        if len(self.pool) or self._failures.recent(now):
            workloads.renew(self._owner, now=now, lease_s=settings.lease_s)
        claimed = workloads.claim(
            tuple(ACTIVE), owner=self._owner, now=now, lease_s=settings.lease_s
        )
        allocations = workloads.allocations() if claimed else {}
        for ident, token in claimed:
            try:
                self._start(ident, token, allocations.get(ident), edges)
            except Exception as error:
                self._failures.note(ident, error, now)
                log.exception("workload.not-started", workload=ident)
        self._pass_on_requests()
        return has_ended

    def _pass_on_requests(self) -> None:
        """Tell controllers what the store has for them: one look for all.

        A lease without a controller, whose start failed, is given up for the next claim.
        """
        store = self._context.store
        leased, resizing = store.workloads.leased(self._owner), store.resize_requests.ids()
        for ident in leased.keys() - self._running.keys():
            self._give_up(ident, *leased[ident])
        for ident, running in list(self._running.items()):
            token, state = leased.get(ident, ("", State.QUEUED))
            if token != running.token:  # another control has it, or it has ended
                running.controller.stand_down()
            elif state in REQUESTED or ident in resizing:
                running.controller.note_request()
            else:
                continue
            self.pool.wake(ident)

    def _give_up(self, ident: WorkloadId, token: str, state: State) -> None:
        """Release the lease of a workload without a controller once a pause is over, or end it."""
        workloads, now = self._context.store.workloads, self._context.clock.now()
        failure = self._failures.newest(ident)
        if failure is not None and failure.is_final:
            self._fail(ident, token, state, failure.reason)
        elif failure is None or now >= failure.resumes_at:
            workloads.release(ident, token)

    def _fail(self, ident: WorkloadId, token: str, state: State, why: str) -> None:
        """End a workload that cannot be controlled; its processes are orphans from now on."""
        workloads, now = self._context.store.workloads, self._context.clock.now()
        item = workloads.by_id(ident)
        before = INITIAL_STATUS if item is None else item.status
        is_asked = state == State.STOPPING
        end = EndReason.CANCELLED if is_asked else EndReason.START_FAILED
        status = replace(before, reason=why, end=end)
        ended = State.CANCELLED if is_asked else State.FAILED
        if workloads.end(ident, token, ended, status, now=now):
            log.error("workload.failed", workload=ident, why=why)
            self._failures.forget(ident)
            self._has_ended = True

    def drop(self, ident: WorkloadId) -> None:
        """End a workload's controller as if it had failed; another one takes over."""
        running = self._running.get(ident)
        if running is None:
            return
        self.pool.drop(ident, within_s=STOP_S)
        self._context.store.workloads.release(ident, running.token)
        self._on_ended()

    def failing(self) -> int:
        """How many workloads have a controller that failed a short while ago."""
        return self._failures.recent(self._context.clock.now())

    def stand_down(self) -> None:
        """Stop all controllers; what they look after goes on."""
        self.pool.stand_down()

    def _start(
        self, ident: WorkloadId, token: str, allocation: Allocation | None, edges: Edges
    ) -> None:
        item = self._context.store.workloads.by_id(ident)
        if allocation is None or item is None or isinstance(item, Service):
            log.error("workload.without-allocation", workload=ident)
            return
        if item.unreadable:
            self._fail(ident, token, item.state, item.unreadable)
            return
        controller: Controller
        wake = partial(self.pool.wake, ident)
        if isinstance(item, Job):
            lease = Lease(job=item, allocation=allocation, token=token)
            controller = JobController(lease, edges.deps, wake)
        else:
            controller = ReplicaController(item, allocation, token, edges.serving, wake)
        if allocation.epoch == 1 and item.state == State.PLACED:
            self._context.metrics.observe(
                QUEUE_TIME,
                max(0.0, allocation.since - item.created_at),
                kind="job" if isinstance(item, Job) else "service",
                priority=str(item.spec.priority),
            )
        log.info("workload.taken", workload=ident, state=item.state, epoch=allocation.epoch)
        self._running[ident] = _Running(controller=controller, token=token)
        self.pool.add(ident, controller)

    def _forget(self, ident: WorkloadId, controller: Controller, failure: Exception | None) -> None:
        """Note the end of a controller; the lease of one that failed is kept for a pause."""
        running = self._running.get(ident)
        if running is not None and running.controller is controller:
            if failure is None:
                self._failures.forget(ident)
            else:  # noted first: the lease is given up as soon as there is no controller
                self._failures.note(ident, failure, self._context.clock.now())
            del self._running[ident]
        self._has_ended = True
        self._on_ended()
