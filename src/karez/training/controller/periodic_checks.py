"""Periodic checks of a job controller: logs, users' requests, checkpoints, node health."""

import math
import signal
from dataclasses import dataclass, replace

from karez.core.messages.orders import StoreCheckpointOrder
from karez.core.workloads import EndReason, State
from karez.training.controller.emergency_checkpoint import take_emergency_checkpoint
from karez.training.controller.gang_run import GangRun
from karez.training.controller.log_copier import copy_logs
from karez.training.controller.resize import resize
from karez.training.controller.run_end import stop_run
from karez.training.recovery.commands import EndGang
from karez.training.recovery.events import Exited, NodeEvicted
from karez.training.recovery.state import Phase

NEWS_S = 0.3
"""How old the news of a step may be, and how long a request may take to reach every rank."""
PREEMPTION_GRACE_S = 30.0
"""How long a preempted job may take to complete and store a step; after that its ranks store the
newest step that they have."""


@dataclass(slots=True, kw_only=True)
class PeriodicChecks:
    """Runs the checks of one run, and keeps when they last happened."""

    run: GangRun
    checkpoint_at: float
    """When the last checkpoint was requested; at first, when the controller began."""
    _checked_at: float = 0.0
    _committed: int = 0
    _steps_per_s: float = 0.0
    """How many steps a second the ranks completed between the last two checks."""
    _preemption: tuple[int | None, float] | None = None
    """(step to store, deadline) of a preemption under way."""

    @property
    def due_at(self) -> float:
        """When the next check is due."""
        at = self._checked_at + self.run.deps.settings.tick_s
        return at if self._preemption is None else min(at, self._preemption[1])

    def check_if_due(self, now: float) -> None:
        """Check everything once per tick, and once more when the run has ended."""
        if self._preemption is not None and not self.run.is_over:
            self._preempt(now)
        if now >= self.due_at or self.run.end:
            self._measure_rate(now)
            self._checked_at = now
            self._check(now)

    def _measure_rate(self, now: float) -> None:
        committed = max((rank.committed for _, rank in self.run.gang.active), default=0)
        elapsed_s = max(now - self._checked_at, self.run.deps.settings.tick_s)
        self._steps_per_s = max(0.0, (committed - self._committed) / elapsed_s)
        self._committed = committed

    def _check(self, now: float) -> None:
        run = self.run
        copy_logs(run.deps, run.job.id, run.gang, run.executor.context.epoch)
        if not run.status.flush(run.gang):
            run.stopped.set()  # another control owns the job
        run.status.show_plain(run.gang, now)
        self._check_duration(now)
        self._check_checkpoint(now)
        run.own_checkpoints.check(now)
        for node, why in run.deps.nodes_to_avoid().items():
            run.apply(NodeEvicted(node=node, why=why))
        for index, attempt in run.executor.vanished(run.gang, now):
            run.apply(Exited(rank=index, attempt=attempt, code=-int(signal.SIGKILL)))

    def check_requests(self, now: float) -> None:
        """Act on a cancellation, a preemption or a change of size that the store has."""
        run = self.run
        job = run.deps.store.workloads.job(run.job.id)
        state = None if job is None or run.is_over else job.state
        if state == State.STOPPING:
            stop_run(run, EndGang(reason=EndReason.CANCELLED, detail="cancelled by request"))
        elif state == State.PREEMPTING:
            self._preempt(now)
        elif state is not None:
            resize(run)

    def _check_duration(self, now: float) -> None:
        run = self.run
        limit_s, since = run.job.spec.max_duration_s, run.status.started_at
        if limit_s and since and now - since > limit_s and run.end is None:
            stop_run(run, EndGang(reason=EndReason.TIMED_OUT, detail=f"ran for {limit_s:.0f} s"))

    def _check_checkpoint(self, now: float) -> None:
        """Show the interval, and request a checkpoint when one is due."""
        run = self.run
        every_s = run.cadence.every_s(len(run.allocation.nodes), now)
        run.status.status = replace(run.status.status, checkpoint_every_s=round(every_s, 1))
        run.status.show_note(run.hang_monitor.note if run.gang.phase == Phase.RUNNING else "")
        if now - self.checkpoint_at > every_s:
            self.checkpoint_at = now
            self._request_checkpoint()

    def _request_checkpoint(self) -> int | None:
        """Have every rank store the same step. Returns the first step that it can be.

        Ranks whose gradients the session averages agree on it by themselves, the others take one
        that none has reached yet.
        """
        gang = self.run.gang
        if gang.phase != Phase.RUNNING or not gang.is_session:
            return None
        reached = max(rank.committed for _, rank in gang.active)
        step = reached + 2 + math.ceil(NEWS_S * self._steps_per_s)
        self.run.executor.send_all(gang, StoreCheckpointOrder(step=step))
        return reached + 1

    def _preempt(self, now: float) -> None:
        """Release the devices for other jobs: store a step, end the ranks, queue again."""
        run = self.run
        if self._preemption is None:
            self._preemption = (self._request_checkpoint(), now + PREEMPTION_GRACE_S)
        step, deadline = self._preemption
        indices = [index for index, _ in run.gang.active]
        checkpoint = run.deps.store.history.newest_checkpoint(run.job.id, indices)
        is_stored = step is None or any(
            part.step >= step for parts in checkpoint.values() for part in parts
        )
        if not is_stored and now >= deadline:
            take_emergency_checkpoint(run.gang, indices, run.executor, run.events, run.saver)
            is_stored = True
        if is_stored:
            stop_run(run, EndGang(reason=EndReason.PREEMPTED, detail="it made room for others"))
