"""Injects faults into a job that allows it, and into no other."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from karez.core.chaos import MAX_AT_ONCE, FaultSpec, InjectedFault
from karez.core.errors import BadRequest
from karez.core.fault_injection import FaultKind
from karez.core.jobs import Job
from karez.core.ports import Clock, Fabric, NodeLost
from karez.core.workloads import ACTIVE, WorkloadId


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultInjector:
    """Injects faults through the fabric."""

    clock: Clock
    fabric: Callable[[], Fabric | None]
    """The fabric, once it is connected."""
    drop: Callable[[WorkloadId], None]
    """Ends the controller of a job."""

    def inject(self, job: Job, specs: Sequence[FaultSpec]) -> list[InjectedFault]:
        """Inject faults, each after its delay; returns when, by this clock.

        Raises:
            BadRequest: The job does not allow it, is not running, or has no such rank.
        """
        _check(job, specs)
        return [self._schedule(job, spec) for spec in specs]

    def _schedule(self, job: Job, spec: FaultSpec) -> InjectedFault:
        at = self.clock.now() + spec.after_s
        if spec.after_s:
            later = threading.Timer(spec.after_s, self._inject, args=(job, spec))
            later.daemon = True
            later.start()
        else:
            self._inject(job, spec)
        return InjectedFault(what=spec.what, rank=spec.rank, at=at)

    def _inject(self, job: Job, spec: FaultSpec) -> None:
        if spec.what == FaultKind.CONTROLLER:
            self.drop(job.id)
        elif spec.what == FaultKind.CONTROL:
            end = threading.Timer(0.05, os.kill, args=(os.getpid(), signal.SIGKILL))
            end.daemon = True
            end.start()  # after the answer
        else:
            self._on_node(job, spec)

    def _on_node(self, job: Job, spec: FaultSpec) -> None:
        fabric = self.fabric()
        if fabric is None:
            raise BadRequest(problem="no node is connected yet", fix="Try again in a moment.")
        try:
            for node in sorted({view.node for view in job.status.ranks}):
                for info in fabric.processes(node):
                    if info.workload == job.id and info.rank == spec.rank and info.alive:
                        fabric.inject_fault(node, job.id, info.key, spec.what)
                        return
        except NodeLost:
            return  # it is gone already


def _check(job: Job, specs: Sequence[FaultSpec]) -> None:
    if not job.spec.chaos:
        raise BadRequest(
            problem=f"{job.spec.name} does not allow chaos",
            fix="Submit it with --chaos, or with [recovery] chaos = true in its file.",
        )
    if not 1 <= len(specs) <= MAX_AT_ONCE:
        raise BadRequest(problem=f"name 1 to {MAX_AT_ONCE} faults at once, not {len(specs)}")
    if job.state not in ACTIVE:
        raise BadRequest(problem=f"{job.spec.name} is {job.state}", fix="It must be running.")
    known = {view.rank for view in job.status.ranks}
    missing = sorted({spec.rank for spec in specs} - known)
    if missing:
        raise BadRequest(problem=f"{job.spec.name} has no rank {missing[0]}")
