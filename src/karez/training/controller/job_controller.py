"""Carries out what the recovery protocol decides for one job: a thin loop around a pure machine.

The controller can be killed at any moment: the processes go on, and the next controller adopts
them from what they last reported.
"""

import threading

from karez.core.jobs import Job
from karez.core.workloads import Allocation
from karez.training.controller.controller_deps import ControllerDeps
from karez.training.controller.gang_run import GangRun
from karez.training.controller.gang_start import Lease, open_run
from karez.training.controller.node_reports import handle_next_report
from karez.training.controller.periodic_checks import PeriodicChecks
from karez.training.controller.run_end import close_run
from karez.training.controller.status_writer import StatusWriter
from karez.training.recovery.events import Tick

POLL_S = 0.1
"""How long the loop waits for an event before it checks deadlines."""


class JobController:
    """Controls one job under a lease; `run` needs a thread of its own."""

    def __init__(self, job: Job, allocation: Allocation, token: str, deps: ControllerDeps) -> None:
        """Control a job whose lease has this token."""
        self.status = StatusWriter(job, token, deps)
        self.status.held_since = allocation.since
        self._lease = Lease(job=job, allocation=allocation, token=token)
        self._deps = deps
        self._stopped = threading.Event()
        self._began_at = deps.clock.now()

    def run(self) -> None:
        """Control the job until it has ended, is queued again, or another control owns it."""
        try:
            run = open_run(self._lease, self.status, self._deps, self._stopped)
            checks = PeriodicChecks(run=run, checkpoint_at=self._began_at)
            while run.end is None and not self._stopped.is_set():
                _run_once(run, checks)
            if run.end is not None:
                close_run(run, run.end)
        finally:
            self._stopped.set()

    def stand_down(self) -> None:
        """Stop controlling the job; its processes go on."""
        self._stopped.set()


def _run_once(run: GangRun, checks: PeriodicChecks) -> None:
    handle_next_report(run, within_s=POLL_S)
    now = run.deps.clock.now()
    run.apply(Tick())
    if (hung := run.hang_monitor.check(run.gang, now)) is not None:
        run.apply(hung)
    checks.check_if_due(now)
