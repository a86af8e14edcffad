"""Carries out scheduling decisions: preempt, resize, and start once devices are free."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.stores.store import Store
from karez.core.units import MILLI
from karez.core.workloads import WorkloadId
from karez.scheduling.decisions import Action, Preempt, Resize, Start
from karez.server.controllers.pending_decisions import RESIZE_S, PendingDecisions, PendingStart
from karez.server.controllers.store_view import StoreView

_DeviceKey = tuple[NodeId, str, int]


@dataclass(slots=True, kw_only=True)
class DecisionExecutor:
    """Requests what was decided, and starts workloads whose devices have been released."""

    store: Store
    pending: PendingDecisions = field(default_factory=PendingDecisions)

    def request(self, actions: Sequence[Action], now: float) -> None:
        """Request decided actions; a start stays pending until others have made room for it."""
        releasing: dict[WorkloadId, set[WorkloadId]] = {}
        for action in actions:
            match action:
                case Preempt(id=ident, by=by):
                    releasing.setdefault(by or ident, set()).update(self._preempt(ident))
                case Resize(id=ident, grants=grants, by=by):
                    self.store.resize_requests.request(ident, grants)
                    self.pending.resizing[ident] = (now + RESIZE_S, grants)
                    if by is not None:
                        releasing.setdefault(by, set()).add(ident)
                case Start(id=ident, grants=grants):
                    after = releasing.get(ident, set()) | ({ident} & self.pending.preempting)
                    self.pending.starts[ident] = _pending_start(ident, grants, frozenset(after))

    def _preempt(self, ident: WorkloadId) -> frozenset[WorkloadId]:
        """Request a preemption; returns the workloads that release devices by it."""
        dropped = self.pending.starts.pop(ident, None)
        if dropped is not None:
            return dropped.after  # it never started: what was to make room for it makes room still
        self.store.workloads.request_preemption(ident)
        self.pending.preempting.add(ident)
        return frozenset({ident})

    def carry_out(self, view: StoreView, now: float) -> int:
        """Start pending workloads whose devices are free; returns how many."""
        started = 0
        for ident in self.pending.preempting:
            # repeated, since a workload that was starting does not take the request
            self.store.workloads.request_preemption(ident)
        held: Counter[_DeviceKey] = Counter()
        for running in view.running.values():
            _count_held(running.allocation.grants, held)
        for ident, start in list(self.pending.starts.items()):
            if self.pending.waits_for(start):
                continue
            if ident not in view.waiting or not _are_free(start.grants, held):
                continue
            _count_held(start.grants, held)
            del self.pending.starts[ident]
            started += self.store.workloads.place(ident, start.grants, now=now) is not None
        return started

    def are_free(self, grants: Sequence[Grant]) -> bool:
        """Whether no workload in the store holds any of these devices."""
        held: Counter[_DeviceKey] = Counter()
        for allocation in self.store.workloads.allocations().values() if grants else ():
            _count_held(allocation.grants, held)
        return _are_free(grants, held)

    def record_reasons(self, reasons: Mapping[WorkloadId, str], view: StoreView) -> None:
        """Store why workloads wait, where the reason has changed."""
        starts = {ident: start.reason for ident, start in self.pending.starts.items()}
        before = {ident: reason for ident, _, reason in view.queued}
        self.store.workloads.explain(
            {
                ident: reason
                for ident, reason in {**reasons, **starts}.items()
                if before.get(ident, reason) != reason
            }
        )


def _pending_start(
    ident: WorkloadId, grants: tuple[Grant, ...], after: frozenset[WorkloadId]
) -> PendingStart:
    names = " and ".join(sorted(after - {ident}))
    reason = f"{names} make room for it" if names else "it is being moved"
    return PendingStart(grants=grants, after=after, reason=reason)


def _count_held(grants: Sequence[Grant], held: Counter[_DeviceKey]) -> None:
    """Add the numbered devices of grants to a count of thousandths by device."""
    for grant in grants:
        held.update({(grant.node, grant.kind, index): n for index, n in grant.devices})
        held.update({(grant.node, DeviceKind.CPU, index): n for index, n in grant.cores})


def _are_free(grants: Sequence[Grant], held: Counter[_DeviceKey]) -> bool:
    """Whether nobody in the store holds these devices: the last check before they are given."""
    asked: Counter[_DeviceKey] = Counter()
    _count_held(grants, asked)
    return all(held[device] + milli <= MILLI for device, milli in asked.items())
