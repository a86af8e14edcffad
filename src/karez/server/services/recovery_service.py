"""Recoveries: receipts, goodput, fault reports, and fault injection."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from statistics import median

from karez.core.api_models import PublicKey, ReceiptView
from karez.core.chaos import FaultSpec, InjectedFault
from karez.core.errors import BadRequest, NotFound
from karez.core.goodput import Goodput, goodput
from karez.core.jobs import Job
from karez.core.ports import Clock
from karez.core.receipts import ReceiptsHead, SignedReceipts, fingerprint, head_of
from karez.core.recovery import FaultReport, Transition
from karez.core.stores.store import Store
from karez.core.traces import Trace, trace_of
from karez.server.services.fault_injector import FaultInjector
from karez.training.recovery.node_health import EVICTED

AHEAD_S = 60.0
"""Seconds that a monitor's clock may be ahead."""
STEPS = 400
"""Newest steps from whose metrics the length of a step is computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryService:
    """Reads what job controllers recorded, and takes fault reports."""

    store: Store
    clock: Clock
    public: bytes
    sign_head: Callable[[ReceiptsHead], ReceiptsHead]
    injector: FaultInjector
    reported: Callable[[], None]
    """Judges the health of nodes at once."""

    def key(self) -> PublicKey:
        """The public half of the key that signs receipts."""
        return PublicKey(public=self.public.hex(), fingerprint=fingerprint(self.public))

    def receipts(self, job: Job) -> list[ReceiptView]:
        """One per recovery, oldest first."""
        return [
            ReceiptView(**asdict(one), steps_lost=one.steps_lost, recovery_s=one.recovery_s)
            for one in self.store.history.receipts(job.id)
        ]

    def signed_receipts(self, job: Job) -> SignedReceipts:
        """All receipts of a job with their signed head."""
        found = self.store.history.receipts(job.id)
        head = head_of(job.id, job.state.value, found, self.clock.now())
        return SignedReceipts(head=self.sign_head(head), receipts=tuple(found))

    def goodput(self, job: Job) -> Goodput:
        """The share of a job's time that went into steps that count."""
        now = self.clock.now()
        rows = self.store.history.metrics(job.id, after=max(0, job.status.step - STEPS))
        lowest = min((row.rank for row in rows), default=0)
        first = [row.at for row in rows if row.rank == lowest]
        gaps = [late - early for early, late in pairwise(first) if late > early]
        return goodput(
            self.store.history.receipts(job.id),
            began_at=job.started_at or now,
            until=job.ended_at or now,
            step_s=median(gaps) if gaps else 0.0,
            waited=waits(self.store.history.transitions(job.id)),
        )

    def trace(self, job: Job) -> Trace:
        """All that the job went through, as spans."""
        return read_trace(self.store, job, self.clock.now())

    def report(self, report: FaultReport) -> FaultReport:
        """Store a monitor's fault report. Raises NotFound, BadRequest."""
        if report.node not in {str(node.id) for node in self.store.pool.nodes()}:
            raise NotFound(noun="node", name=report.node)
        now = self.clock.now()
        if report.code == EVICTED:
            raise BadRequest(problem=f"the code {EVICTED!r} is this cloud's own")
        if report.at > now + AHEAD_S:
            raise BadRequest(problem="the report is of the future", fix="Leave `at` out for now.")
        dated = replace(report, at=report.at or now)
        self.store.history.add_incident(dated)
        self.reported()
        return dated

    def incidents(self, since: float, node: str) -> Sequence[FaultReport]:
        """Fault reports since an instant, of one node or of all."""
        return self.store.history.incidents(since=since, node=node)

    def inject(self, job: Job, specs: Sequence[FaultSpec]) -> list[InjectedFault]:
        """Inject faults into a job. Raises BadRequest."""
        return self.injector.inject(job, specs)


def read_trace(store: Store, job: Job, now: float) -> Trace:
    """Read what the store has of a job, as a trace."""
    return trace_of(
        job,
        store.workloads.held(job.id),
        store.history.transitions(job.id),
        store.history.receipts(job.id),
        now,
    )


def waits(log: Sequence[Transition]) -> list[tuple[float, float]]:
    """Intervals from a failure of a whole job to its next running phase."""
    intervals: list[tuple[float, float]] = []
    failed_at: float | None = None
    for transition in log:
        if transition.phase == "failed":
            failed_at = transition.at
        elif transition.phase == "running" and failed_at is not None:
            intervals.append((failed_at, transition.at))
            failed_at = None
    return intervals
