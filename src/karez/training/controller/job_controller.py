"""Carries out what the recovery protocol decides for one job: a thin loop around a pure machine.

The controller can be killed at any moment: the processes go on, and the next controller adopts
them from what they last reported.
"""

import threading
from collections.abc import Callable

from karez.node_events.stream import NodeEventStream
from karez.training.controller.controller_deps import ControllerDeps
from karez.training.controller.gang_run import GangRun
from karez.training.controller.gang_start import Lease, open_run
from karez.training.controller.node_reports import handle_next_report
from karez.training.controller.periodic_checks import PeriodicChecks
from karez.training.controller.run_end import close_run
from karez.training.controller.status_writer import StatusWriter
from karez.training.recovery.events import Tick

REPORTS_AT_ONCE = 1000
"""Reports that are handled before deadlines are checked."""


class JobController:
    """Controls one job under a lease, a step at a time; no two threads may be in a step."""

    def __init__(
        self,
        lease: Lease,
        deps: ControllerDeps,
        wake: Callable[[], None],
    ) -> None:
        """Control a leased job. `wake` is called, on another thread, when a step has work to do."""
        self.status = StatusWriter(lease.job, lease.token, deps)
        self.status.held_since = lease.allocation.since
        self._lease, self._deps = lease, deps
        self._events = NodeEventStream(deps.hub, lease.job.id, wake)
        self._stopped = threading.Event()
        self._began_at = deps.clock.now()
        self._checks: PeriodicChecks | None = None
        self._has_request = False

    @property
    def is_slow(self) -> bool:
        """Whether the next step starts a gang, stops it or ends it: that may take minutes."""
        return self._has_request or self._checks is None or self._checks.run.end is not None

    def step(self) -> float | None:
        """Do what is due now. Returns when the next step is due; None: there is none.

        There is none once the job has ended, is queued again, or another control owns it.
        """
        if not self._stopped.is_set():
            self._checks = self._advance()
        if self._checks is None or self._stopped.is_set():
            return None
        return self._next_step_at(self._checks)

    def _advance(self) -> PeriodicChecks:
        """Start, look after, or end the run."""
        if self._checks is None:
            run = open_run(self._lease, self.status, self._deps, self._stopped, self._events)
            return PeriodicChecks(run=run, checkpoint_at=self._began_at)
        run = self._checks.run
        if run.end is None:
            if self._has_request:
                self._has_request = False
                self._checks.check_requests(self._deps.clock.now())
            _look_after(self._checks)
        else:
            close_run(run, run.end)
            self._stopped.set()
        return self._checks

    def note_request(self) -> None:
        """Look in the store, at the next step, for what is asked of the job."""
        self._has_request = True

    def stand_down(self) -> None:
        """Stop controlling the job; its processes go on."""
        self._stopped.set()

    def close(self) -> None:
        """Follow the nodes no more."""
        self._events.close()

    def _next_step_at(self, checks: PeriodicChecks) -> float:
        now = self._deps.clock.now()
        if checks.run.end is not None:
            return now
        return min(checks.due_at, checks.run.next_deadline(now))


def _look_after(checks: PeriodicChecks) -> None:
    run = checks.run
    for _ in range(REPORTS_AT_ONCE):
        if run.is_over or not handle_next_report(run):
            break
    now = run.deps.clock.now()
    _tick(run)
    if (hung := run.hang_monitor.check(run.gang, now)) is not None:
        run.apply(hung)
    checks.check_if_due(now)


def _tick(run: GangRun) -> None:
    """Act on all deadlines that have passed; each tick acts on the first."""
    while not run.is_over:
        before = run.gang
        run.apply(Tick())
        if run.gang is before:
            return
