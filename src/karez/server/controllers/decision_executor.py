"""Writes scheduling decisions into the store: what is owed first, then what is done now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from karez.core.codec import from_text, to_brief_text
from karez.core.grants import Grant
from karez.core.stores.store import Store
from karez.core.workloads import WorkloadId
from karez.scheduling.decisions import Action, Preempt, Resize, Start
from karez.server.controllers.held_devices import are_free, held_devices
from karez.server.controllers.pending_decisions import PendingDecisions
from karez.server.controllers.reconciler import (
    Place,
    RequestPreemption,
    RequestResize,
    WithdrawResize,
    Write,
)
from karez.server.controllers.store_view import StoreView

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class DecisionExecutor:
    """Keeps the store's record of pending decisions, and carries decisions out."""

    store: Store
    _saved: PendingDecisions | None = None

    def load(self) -> PendingDecisions:
        """The decisions that an earlier control left pending; none where they cannot be read."""
        text = self.store.scheduler.pending_decisions()
        try:
            self._saved = from_text(PendingDecisions, text) if text else PendingDecisions()
        except ValueError:
            log.exception("scheduler.pending-unreadable")
            return PendingDecisions()
        return self._saved

    def go_on(self, owed: PendingDecisions, now: float) -> None:
        """Ask again for what an earlier control had asked, or had not come to ask.

        What it had asked before that, and was to take back as it ended, would be taken still.
        """
        asked = {ident: one for ident, one in owed.resizing.items() if one.is_asked}
        stale = self.store.resize_requests.ids() - asked.keys()
        writes: list[Write] = [RequestResize(id=i, grants=one.grants) for i, one in asked.items()]
        writes += [WithdrawResize(id=ident) for ident in sorted(stale)]
        self.carry_out(owed, writes, now)

    def carry_out(self, pending: PendingDecisions, writes: Sequence[Write], now: float) -> int:
        """Record what stays pending, then write; returns how many workloads were started.

        In this order a control that ends in between leaves nothing undone that its successor does
        not know of: every write but that of a start, which is whole by itself, can be repeated.
        """
        self.save(pending)
        started = 0
        for write in writes:
            match write:
                case RequestPreemption(id=ident):
                    self.store.workloads.request_preemption(ident)
                case RequestResize(id=ident, grants=grants):
                    self.store.resize_requests.request(ident, grants)
                case WithdrawResize(id=ident):
                    self.store.resize_requests.drop(ident)
                case Place(id=ident, grants=grants):
                    started += self.store.workloads.place(ident, grants, now=now) is not None
        return started

    def log(self, decided: Sequence[Action]) -> None:
        """Write a line into control's log for each decision of the engine."""
        for action in decided:
            match action:
                case Start(id=ident, grants=grants):
                    nodes = sorted({grant.node for grant in grants})
                    log.info("scheduler.start", workload=ident, workers=len(grants), nodes=nodes)
                case Preempt(id=ident, by=by, lost_device_s=lost):
                    cost = round(lost, 1)
                    log.info("scheduler.preempt", workload=ident, by=by or "", lost_device_s=cost)
                case Resize(id=ident, grants=grants, by=by):
                    log.info("scheduler.resize", workload=ident, workers=len(grants), by=by or "")

    def save(self, pending: PendingDecisions) -> None:
        """Record what is pending, if that has changed."""
        if pending != self._saved:
            self.store.scheduler.save_pending_decisions(to_brief_text(pending))
            self._saved = pending

    def are_free(self, grants: Sequence[Grant]) -> bool:
        """Whether no workload in the store holds any of these devices."""
        allocations = self.store.workloads.allocations().values() if grants else ()
        return are_free(grants, held_devices(g for each in allocations for g in each.grants))

    def record_reasons(
        self, reasons: Mapping[WorkloadId, str], pending: PendingDecisions, view: StoreView
    ) -> None:
        """Store why workloads wait, where the reason has changed."""
        starts = {ident: start.reason for ident, start in pending.starts.items()}
        before = {ident: reason for ident, _, reason in view.queued}
        self.store.workloads.explain(
            {
                ident: reason
                for ident, reason in {**reasons, **starts}.items()
                if before.get(ident, reason) != reason
            }
        )
