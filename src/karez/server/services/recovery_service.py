"""Recoveries for those who ask: receipts, goodput, reports of faults, faults on purpose."""

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
from karez.core.receipts import fingerprint
from karez.core.recovery import FaultReport, Transition
from karez.core.stores.store import Store
from karez.server.services.fault_injector import FaultInjector
from karez.training.recovery.node_health import EVICTED

AHEAD_S = 60.0
"""How far a monitor's clock may be ahead."""
STEPS = 400
"""Newest rows of metrics from which the length of a step is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryService:
    """Reads what foremen wrote."""

    store: Store
    clock: Clock
    public: bytes
    injector: FaultInjector
    reported: Callable[[], None]
    """Have reports of faults judged at once."""

    def key(self) -> PublicKey:
        """The public half of the key that signs receipts."""
        return PublicKey(public=self.public.hex(), fingerprint=fingerprint(self.public))

    def receipts(self, job: Job) -> list[ReceiptView]:
        """One per recovery, oldest first."""
        return [
            ReceiptView(**asdict(one), steps_lost=one.steps_lost, recovery_s=one.recovery_s)
            for one in self.store.history.receipts(job.id)
        ]

    def goodput(self, job: Job) -> Goodput:
        """How much of a job's time went into steps that count."""
        now = self.clock.now()
        rows = self.store.history.metrics(job.id, after=max(0, job.status.step - STEPS))
        first = [row.at for row in rows if row.rank == min(r.rank for r in rows)]
        gaps = [late - early for early, late in pairwise(first) if late > early]
        return goodput(
            self.store.history.receipts(job.id),
            began_at=job.started_at or now,
            until=job.ended_at or now,
            step_s=median(gaps) if gaps else 0.0,
            waited=waits(self.store.history.transitions(job.id)),
        )

    def report(self, report: FaultReport) -> FaultReport:
        """Keep what monitoring says of a node. Raises NotFound."""
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
        """What was reported."""
        return self.store.history.incidents(since=since, node=node)

    def inject(self, job: Job, specs: Sequence[FaultSpec]) -> list[InjectedFault]:
        """Break a job on purpose. Raises BadRequest."""
        return self.injector.inject(job, specs)


def waits(log: Sequence[Transition]) -> list[tuple[float, float]]:
    """From when to when a job was not at work after it had to start over."""
    found: list[tuple[float, float]] = []
    failed_at: float | None = None
    for one in log:
        if one.phase == "failed":
            failed_at = one.at
        elif one.phase == "running" and failed_at is not None:
            found.append((failed_at, one.at))
            failed_at = None
    return found
