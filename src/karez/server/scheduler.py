"""The scheduling loop: look, decide, record, and see decided things through."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from karez.core.explanations import (
    DefragResult,
    Explanation,
    RelocatedWorkload,
    WhatIf,
    WhatIfResult,
)
from karez.core.identity import Project
from karez.core.ports import Clock
from karez.core.resources import DeviceKind, Grant, Node, NodeId, NodeState, ResourceRequest
from karez.core.stores import Store
from karez.core.units import MILLI
from karez.core.workloads import ANYWHERE, NodeAffinity, State, WorkloadId
from karez.scheduling.cluster_state import RunningWorkload
from karez.scheduling.decision_log import ClusterDelta, RecordedEngine
from karez.scheduling.engine import Action, Preempt, Resize, Start
from karez.scheduling.explain.explain import explain
from karez.scheduling.explain.what_if import what_if
from karez.scheduling.placement.placement import place_more
from karez.scheduling.preemption.defragment import plan_defrag
from karez.scheduling.queue.order import PendingWorkload, SchedulingPolicy
from karez.scheduling.snapshot import AllocatedWorkload, Snapshot, engine_from, to_running
from karez.server.records import Records

LIVE = SchedulingPolicy(preempts=True, fair=True, defragments=True, elastic=True)
PAUSE_S = 5.0
"""While nothing changes, the desk is asked no oftener: only patience and maintenance go on."""
FRESH_STEPS = 50_000
"""Steps after which the journal states everything anew, so that its file can be begun anew too."""
RESIZE_S = 60.0
"""How long a gang may take to change its size; after that it stays as it is."""
LENT_S = 30.0
"""How long devices that a gang was offered for a lost rank are kept for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Owed:
    """A start that was decided and waits for others to make room."""

    grants: tuple[Grant, ...]
    after: frozenset[WorkloadId]
    reason: str


@dataclass(slots=True, kw_only=True)
class _Seen:
    """The cloud as the store has it now."""

    queued: Sequence[tuple[WorkloadId, str, str]]
    waiting: Mapping[WorkloadId, PendingWorkload]
    running: Mapping[WorkloadId, AllocatedWorkload]


@dataclass(slots=True)
class Scheduler:
    """One pass at a time. A decision is made once; what it needs others to do first is awaited."""

    store: Store
    clock: Clock
    write: Callable[[str], object] | None = None
    """Takes the lines of the journal."""
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _recorder: RecordedEngine | None = None
    _told: tuple[tuple[Node, ...], tuple[Project, ...]] = ((), ())
    """The nodes and projects that the desk was told last."""
    _owed: dict[WorkloadId, _Owed] = field(default_factory=dict)
    _leaving: set[WorkloadId] = field(default_factory=set)
    """Asked to yield, and still there."""
    _resizing: dict[WorkloadId, tuple[float, tuple[Grant, ...]]] = field(default_factory=dict)
    """Asked to go on with these grants, until when."""
    _stiff: set[WorkloadId] = field(default_factory=set)
    """Did not change their size when they were asked to."""
    _lent: list[tuple[float, tuple[Grant, ...]]] = field(default_factory=list)
    _asked_at: float = float("-inf")
    _steps: int = 0
    _records: Records = field(init=False)

    def __post_init__(self) -> None:
        self._records = Records(self.store)

    def tick(self) -> int:
        """Start what fits, explain what waits; how many were started."""
        with self._lock:
            now = self.clock.now()
            seen = self._look()
            if self._steps > FRESH_STEPS and not self._is_underway():
                self._recorder, self._steps = None, 0
            step = self._step(seen, now)
            is_news = step != ClusterDelta(at=now)
            if not is_news and (now - self._asked_at < PAUSE_S or not self._is_busy(seen)):
                return self._see_through(seen, now)
            self._asked_at = now
            self._steps += 1
            engine_log, self._recorder = self._recorder or RecordedEngine(write=self.write), None
            acts = engine_log.advance(step)
            self._recorder = engine_log  # had it failed, the next pass would state all anew
            self._note(acts)
            started = self._see_through(seen, now)
            self._say_why(seen)
            return started

    def find(
        self,
        need: ResourceRequest,
        count: int,
        avoid: frozenset[NodeId],
        among: NodeAffinity = ANYWHERE,
    ) -> tuple[Grant, ...]:
        """Free devices right now for more workers of something that runs already.

        They are kept for it for a while, so that nobody else is given them meanwhile.
        """
        with self._lock:
            now = self.clock.now()
            engine_log = self._recorder
            if engine_log is None:
                self.tick()
                engine_log = self._recorder
            if engine_log is None:
                return ()
            found = place_more(
                need, count, engine_log.engine.cluster.pool, avoid=avoid, among=among
            )
            engine_log.note_reserved(found)
            if found:
                self._lent.append((now + LENT_S, found))
            return found

    def explain(self, ident: WorkloadId) -> Explanation | None:
        """Why a workload waits; None if it does not, or starts with the next pass."""
        with self._lock:
            owed = self._owed.get(ident)
            why = explain(self._whole(), ident, now=self.clock.now(), policy=LIVE)
        if owed is None:
            return why
        why = why or Explanation(id=ident, name=ident, state=State.QUEUED, reason="")
        return replace(why, reason=owed.reason)

    def what_if(self, question: WhatIf) -> WhatIfResult:
        """What a change would do. Raises NotFound."""
        with self._lock:
            return what_if(self._whole(), question, now=self.clock.now(), policy=LIVE)

    def regroup(self, *, carry_out: bool) -> DefragResult:
        """What could be moved to free whole nodes; with `carry_out`, these are asked to move."""
        with self._lock:
            now = self.clock.now()
            engine_log = self._recorder
            cluster = (
                engine_from(self._whole(), LIVE, now).cluster
                if engine_log is None
                else engine_log.engine.cluster
            )
            plan = plan_defrag(cluster, now)
            if carry_out and engine_log is not None:
                self._note(engine_log.relocate(plan.relocations, now))
        moves = tuple(
            RelocatedWorkload(
                id=move.id,
                project=move.project,
                leaves=tuple(dict.fromkeys(grant.node for grant in move.leaves)),
                takes=tuple(dict.fromkeys(grant.node for grant in move.takes)),
                lost_device_s=move.cost_device_s,
            )
            for move in plan.relocations
        )
        return DefragResult(
            moves=moves,
            freed=plan.freed_nodes,
            lost_device_s=plan.cost_device_s,
            carried_out=carry_out,
        )

    # looking

    def _look(self) -> _Seen:
        queued = self.store.workloads.queued()
        return _Seen(
            queued=queued,
            waiting=self._records.waiting(queued),
            running=self._records.running(self.store.workloads.allocations()),
        )

    def _is_underway(self) -> bool:
        """Whether something decided waits to be carried out."""
        return bool(self._owed or self._leaving or self._resizing or self._lent)

    def _is_busy(self, seen: _Seen) -> bool:
        """Whether time alone may lead to a decision."""
        runs = seen.running.values()
        grows = any(r.waiting and r.waiting.gang.max is not None for r in runs)
        return bool(seen.queued) or grows or self._shuts()

    def _shuts(self) -> bool:
        nodes, _ = self._told
        return any(node.windows or node.state == NodeState.DRAINING for node in nodes)

    def _step(self, seen: _Seen, now: float) -> ClusterDelta:
        """What has changed since the desk was told last."""
        nodes = tuple(replace(node, seen_at=0.0) for node in self.store.pool.nodes())
        projects = tuple(self.store.access.projects())
        if self._recorder is None:
            self._told = (nodes, projects)
            for underway in (self._owed, self._leaving, self._resizing, self._lent):
                underway.clear()
            return ClusterDelta(
                at=now, is_reset=True, nodes=nodes, projects=projects, policy=LIVE,
                usage_s=self._records.had(now, nodes),
                running=tuple(map(to_running, seen.running.values())),
                arrived=tuple(seen.waiting.values()),
            )  # fmt: skip
        told, self._told = self._told, (nodes, projects)
        back = self._leaving - seen.running.keys()
        self._leaving -= back
        given, ended = self._returned(seen, now), self._ended(seen)
        holds = self._held(seen, ended)
        left, came = self._line(seen, ended, {run.id for run in holds}, back)
        return ClusterDelta(
            at=now,
            nodes=None if nodes == told[0] else nodes,
            projects=None if projects == told[1] else projects,
            released=given,
            ended=ended,
            withdrawn=left,
            running=holds,
            arrived=came,
        )

    def _ended(self, seen: _Seen) -> tuple[WorkloadId, ...]:
        """What the desk counts as running and is not, or not as was decided."""
        assert self._recorder is not None, "asked after the first step"
        ended = []
        here = seen.waiting.keys() | self._leaving
        for ident, run in self._recorder.engine.cluster.running.items():
            actual = seen.running.get(ident)
            if actual is None:
                self._resizing.pop(ident, None)
                if ident not in self._owed or ident not in here:
                    ended.append(ident)
                    self._owed.pop(ident, None)
            elif ident not in self._leaving and not self._as_decided(ident, actual, run):
                ended.append(ident)
        return tuple(ended)

    def _held(self, seen: _Seen, ended: tuple[WorkloadId, ...]) -> tuple[RunningWorkload, ...]:
        """What runs and the desk does not count, or not like this."""
        assert self._recorder is not None, "asked after the first step"
        counted = self._recorder.engine.cluster.running.keys() - set(ended)
        return tuple(
            _stiff(to_running(actual)) if ident in self._stiff else to_running(actual)
            for ident, actual in seen.running.items()
            if ident not in counted and ident not in self._leaving
        )

    def _line(
        self,
        seen: _Seen,
        ended: tuple[WorkloadId, ...],
        holds: set[WorkloadId],
        back: set[WorkloadId],
    ) -> tuple[tuple[WorkloadId, ...], tuple[PendingWorkload, ...]]:
        """(who is in the desk's line and should not be, who should be)."""
        assert self._recorder is not None, "asked after the first step"
        line, running = self._recorder.engine.pending, self._recorder.engine.cluster.running
        left = [
            ident
            for ident, known in line.items()
            if ident in holds
            or (ident not in seen.running and ident not in seen.waiting)
            or (ident in back and not _is_as_thought(seen.waiting.get(ident, known), known))
        ]
        gone = set(left)
        came = [
            waiting
            for ident, waiting in seen.waiting.items()
            if (ident not in line or ident in gone) and (ident not in running or ident in ended)
        ]
        return tuple(left), tuple(came)

    def _as_decided(
        self, ident: WorkloadId, actual: AllocatedWorkload, run: RunningWorkload
    ) -> bool:
        grants = actual.allocation.grants
        if grants == run.grants:
            self._resizing.pop(ident, None)
            return True
        until, wanted = self._resizing.get(ident, (0.0, ()))
        if wanted == run.grants and self.clock.now() < until:
            return True
        if self._resizing.pop(ident, None) is not None:
            self._stiff.add(ident)
        return ident in self._owed

    def _returned(self, seen: _Seen, now: float) -> tuple[Grant, ...]:
        """Devices that were lent and are held by somebody now, or were not wanted."""
        held = {grant for run in seen.running.values() for grant in run.allocation.grants}
        given: list[Grant] = []
        kept = []
        for until, grants in self._lent:
            if now >= until or held.issuperset(grants):
                given += grants
            else:
                kept.append((until, grants))
        self._lent = kept
        return tuple(given)

    # carrying out

    def _note(self, acts: Sequence[Action]) -> None:
        """Ask for what was decided; starts are owed until those before them are gone."""
        before: dict[WorkloadId, set[WorkloadId]] = {}
        for act in acts:
            match act:
                case Preempt(id=ident, by=by) if ident in self._owed:
                    # It never started: who was to make room for it makes room for the next.
                    dropped = self._owed.pop(ident)
                    before.setdefault(by or ident, set()).update(dropped.after)
                case Preempt(id=ident, by=by):
                    self.store.workloads.request_preemption(ident)
                    self._leaving.add(ident)
                    before.setdefault(by or ident, set()).add(ident)
                case Resize(id=ident, grants=grants, by=by):
                    self.store.resize_requests.request(ident, grants)
                    self._resizing[ident] = (self.clock.now() + RESIZE_S, grants)
                    if by is not None:
                        before.setdefault(by, set()).add(ident)
                case Start(id=ident, grants=grants):
                    after = frozenset(before.get(ident, set()) | ({ident} & self._leaving))
                    names = " and ".join(sorted(after - {ident}))
                    reason = f"{names} make room for it" if names else "it is being moved"
                    self._owed[ident] = _Owed(grants=grants, after=after, reason=reason)

    def _see_through(self, seen: _Seen, now: float) -> int:
        """Start what is owed and has its room; how many."""
        started = 0
        for ident in self._leaving:
            self.store.workloads.request_preemption(ident)  # it may not have been ready to hear
        held: Counter[tuple[NodeId, str, int]] = Counter()
        for running in seen.running.values():
            _hold(running.allocation.grants, held)
        for ident, owed in list(self._owed.items()):
            if any(one in self._leaving or one in self._resizing for one in owed.after):
                continue
            if ident not in seen.waiting or not _are_free(owed.grants, held):
                continue
            _hold(owed.grants, held)
            del self._owed[ident]
            started += self.store.workloads.place(ident, owed.grants, now=now) is not None
        return started

    def _say_why(self, seen: _Seen) -> None:
        """Record why workloads wait, where that has changed."""
        assert self._recorder is not None, "there was a pass"
        reasons = {ident: owed.reason for ident, owed in self._owed.items()}
        reasons = {**self._recorder.engine.reasons(), **reasons}
        before = {ident: reason for ident, _, reason in seen.queued}
        self.store.workloads.explain(
            {i: reason for i, reason in reasons.items() if before.get(i, reason) != reason}
        )

    def _whole(self) -> Snapshot:
        """The cloud as the store has it, for questions."""
        seen = self._look()
        now, nodes = self.clock.now(), self.store.pool.nodes()
        engine = None if self._recorder is None else self._recorder.engine
        return Snapshot(
            nodes=nodes,
            waiting=list(seen.waiting.values()),
            running=list(seen.running.values()),
            projects={project.name: project for project in self.store.access.projects()},
            usage_s=self._records.had(now, nodes)
            if engine is None
            else dict(engine.cluster.fair_share.usage_s),
            usage_at=now if engine is None else engine.cluster.fair_share.at,
        )


def _hold(grants: Sequence[Grant], held: Counter[tuple[NodeId, str, int]]) -> None:
    """Count numbered devices."""
    for grant in grants:
        held.update({(grant.node, grant.kind, index): n for index, n in grant.devices})
        held.update({(grant.node, DeviceKind.CPU, index): n for index, n in grant.cores})


def _are_free(grants: Sequence[Grant], held: Counter[tuple[NodeId, str, int]]) -> bool:
    """Whether nobody in the store holds these devices: the last look before they are given."""
    asked: Counter[tuple[NodeId, str, int]] = Counter()
    _hold(grants, asked)
    return all(held[device] + milli <= MILLI for device, milli in asked.items())


def _stiff(run: RunningWorkload) -> RunningWorkload:
    """As one that never changes its size."""
    waiting = run.as_pending
    return replace(run, waiting=replace(waiting, gang=replace(waiting.gang, max=None)))


def _is_as_thought(waiting: PendingWorkload, known: PendingWorkload) -> bool:
    """Whether a workload came back as the desk has it: how long it ran, to the second."""
    near = abs(waiting.done_s - known.done_s) < 1.0
    return near and replace(waiting, done_s=0.0, order=0) == replace(known, done_s=0.0, order=0)
