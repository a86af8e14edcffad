"""Writes the state, status, metrics and receipts of one job to the store."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from karez.core.codec import to_text
from karez.core.jobs import Job
from karez.core.messages.reports import (
    CommitReport,
    NoticeReport,
    ProgressReport,
    Report,
    ResumedReport,
    TotalStepsReport,
)
from karez.core.metrics import ENDED, RECOVERIES, RECOVERY_PHASE, START_TIME
from karez.core.nodes import NodeId
from karez.core.receipts import Receipt, chained
from karez.core.recovery import Transition
from karez.core.usage import MetricRow
from karez.core.workloads import EndReason, Progress, RankView, State, Status, WorkloadKind
from karez.training.controller.controller_deps import ControllerDeps
from karez.training.controller.recovery_receipts import receipt_from
from karez.training.recovery.commands import EndGang, WriteReceipt
from karez.training.recovery.controller_state import ControllerState, capture, parse_state
from karez.training.recovery.state import HEALING, Gang, Phase

log = structlog.get_logger()
MAX_TEXT, MAX_NOTICES = 300, 20
"""Characters of a progress or notice, and notices, that are kept."""
RESTART_LIMIT = 3
"""Restarts from a checkpoint that a training job gets by default, as torchrun's --max-restarts=3
in its documentation's examples."""
SESSION_S = 30.0
"""A training whose processes run for so long without a session counts as running."""
NO_SESSION = "no training session has begun (run.track): a fault would start the script over"


class StatusWriter:
    """Writes what the store knows of one job; the lease's token guards every write."""

    def __init__(self, job: Job, token: str, deps: ControllerDeps) -> None:
        """Continue from what the store knows."""
        self.job = job
        self.status: Status = replace(job.status, reason="")
        self.started_at = job.started_at
        self.held_since = deps.clock.now()
        """When the job's devices were granted; set by the controller."""
        self._token = token
        self._deps = deps
        self._metrics = deps.metrics
        self._rows: list[MetricRow] = []
        self._written: Status | None = None
        """The status that was written last."""
        self._note = ""
        self._is_plain = False
        self._views: dict[int, RankView] = {}

    def view(self, index: int, **changes: Any) -> None:
        """Change fields of a rank's view."""
        view = self._views.get(index) or RankView(rank=index, node=NodeId(""))
        self._views[index] = replace(view, **changes)

    def note(self, index: int, report: Report, generation: int, *, at: float) -> None:
        """Record the progress that a report tells of; `generation` is the gang's present one."""
        match report:
            case TotalStepsReport(steps=steps):
                self.status = replace(self.status, total_steps=steps, progress=None)
            case ProgressReport(what=what, done=done, of=of, failed=failed):
                progress = Progress(what=what[:MAX_TEXT], done=done, of=of, failed=failed)
                self.status = replace(self.status, progress=progress)
            case NoticeReport(text=text):
                notices = dict.fromkeys((*self.status.notices, text[:MAX_TEXT]))
                self.status = replace(self.status, notices=tuple(notices)[:MAX_NOTICES])
            case ResumedReport(losses=losses):
                for step, loss in losses:
                    self._add_metric(index, report.generation, step, loss, at)
            case CommitReport(step=step, loss=loss):
                self._add_metric(index, report.generation, step, loss, at)
                if report.generation == generation:
                    self.status = replace(self.status, step=step, loss=loss)
            case _:
                return

    def write(self, state: State | None = None) -> bool:
        """Write state and status. False: the lease is lost, or the job is being stopped."""
        now = self._deps.clock.now()
        if state == State.RUNNING and self.started_at is None:
            self.started_at = now
            self._metrics.observe(START_TIME, now - self.held_since, kind=self.job.spec.kind)
        is_written = self._deps.store.workloads.update(
            self.job.id, token=self._token, state=state, status=self.status, at=now
        )
        if is_written:
            self._written = self.status
        return is_written

    def flush(self, gang: Gang) -> bool:
        """Write metrics, status and views, if they have changed. False: as for `write`."""
        if self._rows:
            self._deps.store.history.add_metrics(self.job.id, self._rows)
            self._rows.clear()
        self.status = replace(self.status, ranks=self._views_of(gang))
        return self.status == self._written or self.write()

    def load_state(self) -> ControllerState | None:
        """The newest state that an earlier controller stored; None: there was none."""
        newest = self._deps.store.history.transitions(self.job.id, newest=1)
        return parse_state(newest[0].body) if newest else None

    def last_step(self) -> tuple[int, float]:
        """The last step in the store, and when it was complete (now, if there is none)."""
        rows = self._deps.store.history.metrics(self.job.id, after=max(-1, self.status.step - 1))
        newest = max(rows, key=lambda row: (row.generation, row.step), default=None)
        if newest is None:
            return self.status.step, self._deps.clock.now()
        return newest.step, newest.at  # steps of an earlier generation may have been given up

    def log(self, gang: Gang) -> None:
        """Write a transition before its commands are executed: no generation is used twice."""
        self.status = replace(self.status, generation=gang.generation)
        log.info(
            "job.phase",
            job=self.job.id,
            phase=gang.phase,
            generation=gang.generation,
            fault="" if gang.fault is None else gang.fault.cause,
        )
        self._deps.store.history.add_transition(
            self.job.id,
            Transition(
                at=self._deps.clock.now(),
                generation=gang.generation,
                phase=gang.phase,
                body=to_text(capture(gang)),
            ),
        )

        self._deps.tracer.changed(self.job.id)

    def show_note(self, note: str) -> None:
        """Show what slows a running gang down; written with the next flush."""
        if note or (self._note and self.status.reason == self._note):
            self.status = replace(self.status, reason=note)
        self._note = note

    def show_phase(self, gang: Gang) -> None:
        """Write the job state that belongs to the gang's phase."""
        if gang.phase == Phase.RUNNING:
            self.status = replace(self.status, reason="")
            self.write(State.RUNNING)
        elif gang.fault is not None and gang.phase in HEALING:
            self.status = replace(self.status, reason=f"{gang.phase}: {gang.fault.cause}")
            self.write(State.RECOVERING)
        elif gang.phase == Phase.RESUMING:
            self.write(State.RUNNING)

    def show_started(self, gang: Gang) -> None:
        """Write RUNNING for a batch job whose process runs; a session must resume first."""
        if not gang.is_session and self.job.spec.kind == WorkloadKind.BATCH:
            self.write(State.RUNNING)

    def show_plain(self, gang: Gang, now: float) -> None:
        """Write RUNNING for a training whose processes run and open no session for a while."""
        is_plain = (
            self.job.spec.kind == WorkloadKind.TRAIN
            and not gang.is_session
            and gang.fault is None
            and all(rank.is_alive for _, rank in gang.active)
            and now - gang.since >= SESSION_S
        )
        if is_plain and not self._is_plain:
            self.status = replace(self.status, reason=NO_SESSION)
            self.write(State.RUNNING)
        self._is_plain = is_plain

    def receipt(self, command: WriteReceipt, epoch: int, *, is_emulated: bool) -> None:
        """Write a recovery's receipt, signed and chained to the receipt before."""
        history = self._deps.store.history
        receipt = receipt_from(self.job.id, command, epoch, is_emulated=is_emulated)
        earlier = history.receipts(self.job.id)
        if all(old.id != receipt.id for old in earlier):
            last = earlier[-1] if earlier else None
            history.add_receipt(self._deps.sign(chained(receipt, last)))
            self._record_recovery(receipt)
            self._deps.tracer.changed(self.job.id)

    def _record_recovery(self, receipt: Receipt) -> None:
        spans = {**receipt.phases, "total": (receipt.detected_at, receipt.resumed_at)}
        for phase, (begin, end) in spans.items():
            self._metrics.observe(RECOVERY_PHASE, end - begin, phase=phase, rung=receipt.rung)
        self._metrics.count(RECOVERIES, code=receipt.code, rung=receipt.rung)
        log.info(
            "job.recovered",
            job=self.job.id,
            cause=receipt.cause,
            rung=receipt.rung,
            recovery_s=round(receipt.resumed_at - receipt.detected_at, 3),
        )

    def close(self, end: EndGang, outputs: Mapping[str, str], gang: Gang) -> None:
        """End the job, or queue it again where its retry rules allow it."""
        now, store = self._deps.clock.now(), self._deps.store
        self._metrics.count(ENDED, reason=end.reason)
        log.info("job.ended", job=self.job.id, reason=end.reason, detail=end.detail)
        store.history.add_metrics(self.job.id, self._rows)
        status = replace(
            self.status,
            end=end.reason,
            reason=end.detail,
            outputs=outputs or self.status.outputs,
            progress=None,
            ranks=self._views_of(gang),
        )
        if self.may_retry(end.reason):
            count = status.retries + (end.reason != EndReason.PREEMPTED)
            ran_s = status.ran_s + max(0.0, now - self.held_since)
            queued = replace(status, retries=count, end=None, ranks=(), ran_s=ran_s)
            if store.workloads.requeue(self.job.id, self._token, queued, now=now):
                self._deps.tracer.changed(self.job.id)
                return
        states = {EndReason.DONE: State.SUCCEEDED, EndReason.CANCELLED: State.CANCELLED}
        state = states.get(end.reason, State.FAILED)
        store.workloads.end(self.job.id, self._token, state, status, now=now)
        self._deps.tracer.changed(self.job.id)

    def may_retry(self, reason: EndReason) -> bool:
        """Whether the job is queued again after such an end."""
        if reason == EndReason.PREEMPTED:
            return True
        spec = self.job.spec
        limit, causes = spec.retry.limit, spec.retry.causes
        if spec.kind == WorkloadKind.TRAIN and "restart" in spec.ladder:
            limit = max(limit, RESTART_LIMIT)
        return reason in causes and self.status.retries < limit

    def _views_of(self, gang: Gang) -> tuple[RankView, ...]:
        return tuple(self._views[index] for index, _ in gang.active if index in self._views)

    def _add_metric(self, index: int, generation: int, step: int, loss: float, at: float) -> None:
        row = MetricRow(step=step, rank=index, loss=loss, at=at, generation=generation)
        self._rows.append(row)
