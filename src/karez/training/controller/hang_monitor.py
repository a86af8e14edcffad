"""Looks at a gang's processes when it does not get on, and hands its verdict to the protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from karez.core.ports import NodeLost, ProcessSample
from karez.core.recovery import FaultReport, Severity
from karez.core.workloads import Job
from karez.training.controller.process_specs import parse_key
from karez.training.controller.status_writer import ControllerDeps
from karez.training.recovery.events import Committed, Hung, RecoveryEvent, Resumed
from karez.training.recovery.hang_detector import HangDetector, Straggler
from karez.training.recovery.hang_diagnosis import Stalled, diagnose, find_stopped
from karez.training.recovery.state import Gang, Phase

APART_S = 0.15
"""Between two looks."""
QUIET_S = 1.0
"""How long a gang may take to come to a stand before its processes are looked at."""


@dataclass(slots=True, kw_only=True)
class HangMonitor:
    """One gang's."""

    job: Job
    deps: ControllerDeps
    detector: HangDetector = field(default_factory=HangDetector)
    note: str = ""
    """What holds the gang up although nothing is wrong with it."""
    _first: Mapping[int, ProcessSample] = field(default_factory=dict)
    _first_at: float = 0.0
    _looked_at: float = 0.0
    _generation: int = 0

    def on_event(self, gang: Gang, event: RecoveryEvent, busy_s: float, now: float) -> None:
        """Learn from what a rank says."""
        match event:
            case Committed(generation=born, rank=rank) if born == gang.generation:
                self.detector.record_event(rank, busy_s, now)
                self._first, self.note = {}, ""
                if (slow := self.detector.straggler()) is not None:
                    self._report(gang, slow, now)
            case Resumed(generation=born, rank=rank) if born == gang.generation:
                self.detector.record_event(rank, 0.0, now, resumed=True)

    def check(self, gang: Gang, now: float) -> Hung | None:
        """Who must be ended for the gang to get on; called several times a second."""
        if not gang.is_session:
            return None
        if gang.generation != self._generation:
            self._generation = gang.generation
            self.detector.begin([number for number, _ in gang.active], now)
            self._first = {}
        if gang.phase in (Phase.QUIESCING, Phase.RESUMING):
            late = now - gang.since > QUIET_S and now - self._looked_at > QUIET_S
            stuck = gang.phase == Phase.QUIESCING
            looks = self._samples(gang, now, stacks=stuck) if late else {}
            if (found := find_stopped(looks, gang.since)) is not None:
                return found
        at_work = gang.phase in (Phase.RUNNING, Phase.RESUMING)
        return self._look_at_work(gang, now) if at_work else None

    def _look_at_work(self, gang: Gang, now: float) -> Hung | None:
        since = self.detector.quiet_since(now)
        is_late = self.detector.late_since(now) is not None
        pause_s = APART_S if is_late else QUIET_S
        if now - since <= self.detector.floor_s or now - self._looked_at < pause_s:
            return None
        looks = self._samples(gang, now)
        if (stopped := find_stopped(looks, since)) is not None:
            return stopped
        if not is_late:
            return None  # only a process that does not run at all is judged so soon
        first, first_at = self._first, self._first_at
        self._first, self._first_at = looks, now
        if not first:
            return None
        verdict = diagnose(
            first,
            looks,
            apart_s=now - first_at,
            late_s=now - since,
            limit_s=self.detector.limit_s,
            since=since,
        )
        if isinstance(verdict, Stalled):
            named = ", ".join(map(str, verdict.ranks))
            self.note = f"rank {named} waits for its data since {verdict.for_s:.0f} s"
            return None
        if verdict is not None:
            self.detector.record_verdict()
            self._samples(gang, now, stacks=True)
        return verdict

    def _samples(
        self, gang: Gang, now: float, *, stacks: bool = False
    ) -> Mapping[int, ProcessSample]:
        self._looked_at = now
        lives = {(number, rank.attempt): number for number, rank in gang.active}
        found: dict[int, ProcessSample] = {}
        for node in sorted({rank.node for _, rank in gang.active if rank.node}):
            try:
                looks = self.deps.fabric.sample(node, self.job.id, stacks=stacks)
            except NodeLost:
                continue  # its watcher says so
            for look in looks:
                named = parse_key(look.key)
                if named in lives:
                    found[lives[named]] = look
        return found

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
