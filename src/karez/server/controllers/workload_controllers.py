"""Runs one controller, on its own thread, for each active workload that control has claimed."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from karez.core.jobs import Job
from karez.core.workloads import ACTIVE, WorkloadId
from karez.server.controllers.control_context import ControlContext, Edges
from karez.serving.replica_controller import ReplicaController
from karez.training.controller.job_controller import JobController

log = structlog.get_logger()
STOP_S = 1.0
"""Seconds that a thread may take to end; what it does is safe to cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    thread: threading.Thread
    controller: JobController | ReplicaController
    token: str
    """Of the lease under which it runs."""


class WorkloadControllers:
    """The controllers of jobs and services that run in this process."""

    def __init__(
        self, context: ControlContext, owner: str, *, on_ended: Callable[[], None]
    ) -> None:
        """Start without any; `on_ended` is called when the thread of a controller has ended."""
        self._context = context
        self._owner = owner
        self._on_ended = on_ended
        self._running: dict[WorkloadId, _Running] = {}

    def drop_leases(self) -> None:
        """Give up the leases that an earlier process of this owner still has."""
        self._context.store.workloads.drop_leases(self._owner)

    def check(self, edges: Edges) -> bool:
        """Forget ended controllers, renew leases, start new ones; returns whether any had ended."""
        workloads, settings = self._context.store.workloads, self._context.settings
        now = self._context.clock.now()
        ended = [ident for ident, run in self._running.items() if not run.thread.is_alive()]
        for ident in ended:
            del self._running[ident]
        if self._running:
            workloads.renew(self._owner, now=now, lease_s=settings.lease_s)
        for ident, token in workloads.claim(
            tuple(ACTIVE), owner=self._owner, now=now, lease_s=settings.lease_s
        ):
            self._start(ident, token, edges)
        return bool(ended)

    def drop(self, ident: WorkloadId) -> None:
        """End a workload's controller as if its thread had died; another one takes over."""
        run = self._running.get(ident)
        if run is None:
            return
        run.controller.stand_down()
        run.thread.join(STOP_S)
        self._context.store.workloads.release(ident, run.token)
        self._on_ended()

    def stand_down(self) -> None:
        """Stop all controllers; what they look after goes on."""
        for run in self._running.values():
            run.controller.stand_down()

    def _start(self, ident: WorkloadId, token: str, edges: Edges) -> None:
        workloads = self._context.store.workloads
        allocation = workloads.allocations().get(ident)
        item = workloads.find(ident)
        if allocation is None or item is None:
            log.error("workload.without-allocation", workload=ident)
            return
        controller: JobController | ReplicaController
        if isinstance(item, Job):
            controller = JobController(item, allocation, token, edges.deps)
        else:
            controller = ReplicaController(item, allocation, token, edges.serving)
        log.info("workload.taken", workload=ident, state=item.state, epoch=allocation.epoch)
        thread = threading.Thread(
            target=self._run, args=(ident, controller), name=ident, daemon=True
        )
        self._running[ident] = _Running(thread=thread, controller=controller, token=token)
        thread.start()

    def _run(self, ident: WorkloadId, controller: JobController | ReplicaController) -> None:
        try:
            controller.run()
        except Exception:
            log.exception("workload.dropped", workload=ident)
        self._on_ended()
