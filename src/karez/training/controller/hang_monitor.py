"""Samples the processes of a gang that makes no progress, and reports hung ranks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from karez.core.jobs import Job
from karez.core.ports import NodeLost
from karez.core.processes import ProcessSample
from karez.core.recovery import FaultReport, Severity
from karez.training.controller.controller_deps import ControllerDeps
from karez.training.controller.process_specs import parse_key
from karez.training.recovery.deadlines import JUST_AFTER_S
from karez.training.recovery.events import Committed, Hung, RecoveryEvent, Resumed
from karez.training.recovery.hang_detector import HangDetector
from karez.training.recovery.hang_diagnosis import Stalled, diagnose, find_stopped
from karez.training.recovery.state import Gang, Phase
from karez.training.recovery.straggler_detector import Straggler

APART_S = 0.15
"""Seconds between two samples of a late gang."""
QUIET_SHARE = 0.1
"""Share of the time since the last event that passes between two samples, if that is more."""
QUIET_S = 1.0
"""Seconds that a gang may take to quiesce before its processes are sampled."""


@dataclass(slots=True, kw_only=True)
class HangMonitor:
    """Watches one gang for hung and slow ranks."""

    job: Job
    deps: ControllerDeps
    detector: HangDetector = field(default_factory=HangDetector)
    note: str = ""
    """What slows the gang down without being a fault."""
    _first: Mapping[int, ProcessSample] = field(default_factory=dict)
    _first_at: float = 0.0
    _sampled_at: float = 0.0
    _generation: int = 0

    def on_event(self, gang: Gang, event: RecoveryEvent, busy_s: float, now: float) -> None:
        """Record the progress of a rank."""
        match event:
            case Committed(generation=generation, rank=rank) if generation == gang.generation:
                self.detector.record_event(rank, busy_s, now)
                self._first, self.note = {}, ""
                if (slow := self.detector.straggler()) is not None:
                    self._report(gang, slow, now)
            case Resumed(generation=generation, rank=rank) if generation == gang.generation:
                self.detector.record_event(rank, 0.0, now, resumed=True)

    def check(self, gang: Gang, now: float) -> Hung | None:
        """The ranks that must be ended for progress, if any; call several times a second."""
        if not gang.is_session:
            return None
        if gang.generation != self._generation:
            self._generation = gang.generation
            self.detector.begin([number for number, _ in gang.active], now)
            self._first = {}
        stopped = self._check_transition(gang, now)
        if stopped is None and gang.phase in (Phase.RUNNING, Phase.RESUMING):
            return self._check_progress(gang, now)
        return stopped

    def due_at(self, gang: Gang, now: float) -> float:
        """When the next check may find something although no rank reports anything."""
        if not gang.is_session:
            return math.inf
        moments = []
        if gang.phase in (Phase.QUIESCING, Phase.RESUMING):
            pause_s = self._pause_s(QUIET_S, gang.since)
            moments.append(max(gang.since, self._sampled_at) + pause_s)
        if gang.phase in (Phase.RUNNING, Phase.RESUMING):
            since, floor_s = self.detector.quiet_since(now), self.detector.floor_s
            limit_s = max(self.detector.limit_s, floor_s)
            moments += [
                max(since + limit_s, self._sampled_at + self._pause_s(APART_S, since)),
                max(since + floor_s, self._sampled_at + self._pause_s(QUIET_S, since)),
            ]
        return max(now, min(moments, default=math.inf)) + JUST_AFTER_S

    def _pause_s(self, least_s: float, since: float) -> float:
        """Seconds until the next sample: the longer nothing has happened, the fewer are taken."""
        return max(least_s, QUIET_SHARE * (self._sampled_at - since))

    def _check_transition(self, gang: Gang, now: float) -> Hung | None:
        """Stopped processes of a gang that takes long to quiesce or to resume."""
        is_late = now - max(gang.since, self._sampled_at) > self._pause_s(QUIET_S, gang.since)
        if gang.phase not in (Phase.QUIESCING, Phase.RESUMING) or not is_late:
            return None
        samples = self._samples(gang, now, stacks=gang.phase == Phase.QUIESCING)
        return find_stopped(samples, gang.since)

    def _check_progress(self, gang: Gang, now: float) -> Hung | None:
        """Stopped or hung processes of a gang whose last event is some time ago."""
        since = self.detector.quiet_since(now)
        is_late = self.detector.is_late(now)
        pause_s = self._pause_s(APART_S if is_late else QUIET_S, since)
        if now - since <= self.detector.floor_s or now - self._sampled_at < pause_s:
            return None
        samples = self._samples(gang, now)
        if (stopped := find_stopped(samples, since)) is not None:
            return stopped
        if not is_late:
            return None  # only a stopped process is judged so soon
        verdict = self._diagnose(samples, since, now)
        if verdict is not None:
            self.detector.record_verdict()
            self._samples(gang, now, stacks=True)
        return verdict

    def _diagnose(
        self, samples: Mapping[int, ProcessSample], since: float, now: float
    ) -> Hung | None:
        """Compare with the samples before; ranks that wait for data are shown, not reported."""
        first, first_at = self._first, self._first_at
        self._first, self._first_at = samples, now
        if not first:
            return None
        verdict = diagnose(
            first,
            samples,
            apart_s=now - first_at,
            late_s=now - since,
            limit_s=self.detector.limit_s,
            since=since,
        )
        if not isinstance(verdict, Stalled):
            return verdict
        named = ", ".join(map(str, verdict.ranks))
        self.note = f"rank {named} waits for its data since {verdict.for_s:.0f} s"
        return None

    def _samples(
        self, gang: Gang, now: float, *, stacks: bool = False
    ) -> Mapping[int, ProcessSample]:
        self._sampled_at = now
        numbers = {(number, rank.attempt): number for number, rank in gang.active}
        by_rank: dict[int, ProcessSample] = {}
        for node in sorted({rank.node for _, rank in gang.active if rank.node}):
            try:
                samples = self.deps.fabric.sample(node, self.job.id, stacks=stacks)
            except NodeLost:
                continue  # NodeEventStream reports the loss
            for sample in samples:
                key = parse_key(sample.key)
                if key in numbers:
                    by_rank[numbers[key]] = sample
        return by_rank

    def _report(self, gang: Gang, slow: Straggler, now: float) -> None:
        self.deps.store.history.add_incident(
            FaultReport(
                sender="karez",
                node=gang.ranks[slow.rank].node,
                code="straggler",
                level=Severity.MINOR,
                detail=f"rank {slow.rank} of {self.job.id} took {slow.factor:.2f} x the others",
                at=now,
            )
        )
        self.note = f"rank {slow.rank} is {slow.factor:.1f} times slower than the others"
