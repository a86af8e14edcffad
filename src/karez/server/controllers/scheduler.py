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
from karez.scheduling.decisions import Action, Preempt, Resize, Start
from karez.scheduling.explain.explain import explain
from karez.scheduling.explain.what_if import what_if
from karez.scheduling.placement.placement import place_more
from karez.scheduling.preemption.defragment import plan_defrag
from karez.scheduling.queue.order import PendingWorkload, SchedulingPolicy
from karez.scheduling.snapshot import AllocatedWorkload, Snapshot, engine_from, to_running
from karez.server.controllers.workload_cache import WorkloadCache

LIVE_POLICY = SchedulingPolicy(preempts=True, fair=True, defragments=True, elastic=True)
PAUSE_S = 5.0
"""While nothing changes, the desk is asked no oftener: only patience and maintenance go on."""
RESET_AFTER_STEPS = 50_000
"""Steps after which the journal states everything anew, so that its file can be begun anew too."""
RESIZE_S = 60.0
"""How long a gang may take to change its size; after that it stays as it is."""
LENT_S = 30.0
"""How long devices that a gang was offered for a lost rank are kept for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _PendingStart:
    """A start that was decided and waits for others to make room."""

    grants: tuple[Grant, ...]
    after: frozenset[WorkloadId]
    reason: str


@dataclass(slots=True, kw_only=True)
class _StoreView:
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
    _engine: RecordedEngine | None = None
    _known: tuple[tuple[Node, ...], tuple[Project, ...]] = ((), ())
    """The nodes and projects that the desk was told last."""
    _pending_starts: dict[WorkloadId, _PendingStart] = field(default_factory=dict)
    _preempting: set[WorkloadId] = field(default_factory=set)
    """Asked to yield, and still there."""
    _resizing: dict[WorkloadId, tuple[float, tuple[Grant, ...]]] = field(default_factory=dict)
    """Asked to go on with these grants, until when."""
    _inelastic: set[WorkloadId] = field(default_factory=set)
    """Did not change their size when they were asked to."""
    _lent: list[tuple[float, tuple[Grant, ...]]] = field(default_factory=list)
    _decided_at: float = float("-inf")
    _steps: int = 0
    _cache: WorkloadCache = field(init=False)

    def __post_init__(self) -> None:
        self._cache = WorkloadCache(self.store)

    def tick(self) -> int:
        """Start what fits, explain what waits; how many were started."""
        with self._lock:
            now = self.clock.now()
            seen = self._read_store()
            if self._steps > RESET_AFTER_STEPS and not self._is_underway():
                self._engine, self._steps = None, 0
            step = self._delta(seen, now)
            is_news = step != ClusterDelta(at=now)
            if not is_news and (now - self._decided_at < PAUSE_S or not self._is_busy(seen)):
                return self._carry_out(seen, now)
            self._decided_at = now
            self._steps += 1
            engine_log, self._engine = self._engine or RecordedEngine(write=self.write), None
            acts = engine_log.advance(step)
            self._engine = engine_log  # had it failed, the next pass would state all anew
            self._request_actions(acts)
            started = self._carry_out(seen, now)
            self._record_reasons(seen)
            return started

    def find_grants(
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
            engine_log = self._engine
            if engine_log is None:
                self.tick()
                engine_log = self._engine
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
            owed = self._pending_starts.get(ident)
            why = explain(self._snapshot(), ident, now=self.clock.now(), policy=LIVE_POLICY)
        if owed is None:
            return why
        why = why or Explanation(id=ident, name=ident, state=State.QUEUED, reason="")
        return replace(why, reason=owed.reason)

    def what_if(self, question: WhatIf) -> WhatIfResult:
        """What a change would do. Raises NotFound."""
        with self._lock:
            return what_if(self._snapshot(), question, now=self.clock.now(), policy=LIVE_POLICY)

    def defragment(self, *, carry_out: bool) -> DefragResult:
        """What could be moved to free whole nodes; with `carry_out`, these are asked to move."""
        with self._lock:
            now = self.clock.now()
            engine_log = self._engine
            cluster = (
                engine_from(self._snapshot(), LIVE_POLICY, now).cluster
                if engine_log is None
                else engine_log.engine.cluster
            )
            plan = plan_defrag(cluster, now)
            if carry_out and engine_log is not None:
                self._request_actions(engine_log.relocate(plan.relocations, now))
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

    def _read_store(self) -> _StoreView:
        queued = self.store.workloads.queued()
        return _StoreView(
            queued=queued,
            waiting=self._cache.waiting(queued),
            running=self._cache.running(self.store.workloads.allocations()),
        )

    def _is_underway(self) -> bool:
        """Whether something decided waits to be carried out."""
        return bool(self._pending_starts or self._preempting or self._resizing or self._lent)

    def _is_busy(self, seen: _StoreView) -> bool:
        """Whether time alone may lead to a decision."""
        runs = seen.running.values()
        grows = any(r.waiting and r.waiting.gang.max is not None for r in runs)
        return bool(seen.queued) or grows or self._has_planned_closures()

    def _has_planned_closures(self) -> bool:
        nodes, _ = self._known
        return any(node.windows or node.state == NodeState.DRAINING for node in nodes)

    def _delta(self, seen: _StoreView, now: float) -> ClusterDelta:
        """What has changed since the desk was told last."""
        nodes = tuple(replace(node, seen_at=0.0) for node in self.store.pool.nodes())
        projects = tuple(self.store.access.projects())
        if self._engine is None:
            self._known = (nodes, projects)
            for underway in (self._pending_starts, self._preempting, self._resizing, self._lent):
                underway.clear()
            return ClusterDelta(
                at=now,
                is_reset=True,
                nodes=nodes,
                projects=projects,
                policy=LIVE_POLICY,
                usage_s=self._cache.usage_s(now, nodes),
                running=tuple(map(to_running, seen.running.values())),
                arrived=tuple(seen.waiting.values()),
            )
        told, self._known = self._known, (nodes, projects)
        back = self._preempting - seen.running.keys()
        self._preempting -= back
        given, ended = self._returned(seen, now), self._ended(seen)
        holds = self._newly_running(seen, ended)
        left, came = self._queue_changes(seen, ended, {run.id for run in holds}, back)
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

    def _ended(self, seen: _StoreView) -> tuple[WorkloadId, ...]:
        """What the desk counts as running and is not, or not as was decided."""
        assert self._engine is not None, "asked after the first step"
        ended = []
        here = seen.waiting.keys() | self._preempting
        for ident, run in self._engine.engine.cluster.running.items():
            actual = seen.running.get(ident)
            if actual is None:
                self._resizing.pop(ident, None)
                if ident not in self._pending_starts or ident not in here:
                    ended.append(ident)
                    self._pending_starts.pop(ident, None)
            elif ident not in self._preempting and not self._as_decided(ident, actual, run):
                ended.append(ident)
        return tuple(ended)

    def _newly_running(
        self, seen: _StoreView, ended: tuple[WorkloadId, ...]
    ) -> tuple[RunningWorkload, ...]:
        """What runs and the desk does not count, or not like this."""
        assert self._engine is not None, "asked after the first step"
        counted = self._engine.engine.cluster.running.keys() - set(ended)
        return tuple(
            _as_inelastic(to_running(actual)) if ident in self._inelastic else to_running(actual)
            for ident, actual in seen.running.items()
            if ident not in counted and ident not in self._preempting
        )

    def _queue_changes(
        self,
        seen: _StoreView,
        ended: tuple[WorkloadId, ...],
        holds: set[WorkloadId],
        back: set[WorkloadId],
    ) -> tuple[tuple[WorkloadId, ...], tuple[PendingWorkload, ...]]:
        """(who is in the desk's line and should not be, who should be)."""
        assert self._engine is not None, "asked after the first step"
        line, running = self._engine.engine.pending, self._engine.engine.cluster.running
        left = [
            ident
            for ident, known in line.items()
            if ident in holds
            or (ident not in seen.running and ident not in seen.waiting)
            or (ident in back and not _matches_record(seen.waiting.get(ident, known), known))
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
            self._inelastic.add(ident)
        return ident in self._pending_starts

    def _returned(self, seen: _StoreView, now: float) -> tuple[Grant, ...]:
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

    def _request_actions(self, acts: Sequence[Action]) -> None:
        """Ask for what was decided; starts are owed until those before them are gone."""
        before: dict[WorkloadId, set[WorkloadId]] = {}
        for act in acts:
            match act:
                case Preempt(id=ident, by=by) if ident in self._pending_starts:
                    # It never started: who was to make room for it makes room for the next.
                    dropped = self._pending_starts.pop(ident)
                    before.setdefault(by or ident, set()).update(dropped.after)
                case Preempt(id=ident, by=by):
                    self.store.workloads.request_preemption(ident)
                    self._preempting.add(ident)
                    before.setdefault(by or ident, set()).add(ident)
                case Resize(id=ident, grants=grants, by=by):
                    self.store.resize_requests.request(ident, grants)
                    self._resizing[ident] = (self.clock.now() + RESIZE_S, grants)
                    if by is not None:
                        before.setdefault(by, set()).add(ident)
                case Start(id=ident, grants=grants):
                    after = frozenset(before.get(ident, set()) | ({ident} & self._preempting))
                    names = " and ".join(sorted(after - {ident}))
                    reason = f"{names} make room for it" if names else "it is being moved"
                    self._pending_starts[ident] = _PendingStart(
                        grants=grants, after=after, reason=reason
                    )

    def _carry_out(self, seen: _StoreView, now: float) -> int:
        """Start what is owed and has its room; how many."""
        started = 0
        for ident in self._preempting:
            self.store.workloads.request_preemption(ident)  # it may not have been ready to hear
        held: Counter[tuple[NodeId, str, int]] = Counter()
        for running in seen.running.values():
            _count_held(running.allocation.grants, held)
        for ident, owed in list(self._pending_starts.items()):
            if any(one in self._preempting or one in self._resizing for one in owed.after):
                continue
            if ident not in seen.waiting or not _are_free(owed.grants, held):
                continue
            _count_held(owed.grants, held)
            del self._pending_starts[ident]
            started += self.store.workloads.place(ident, owed.grants, now=now) is not None
        return started

    def _record_reasons(self, seen: _StoreView) -> None:
        """Record why workloads wait, where that has changed."""
        assert self._engine is not None, "there was a pass"
        reasons = {ident: owed.reason for ident, owed in self._pending_starts.items()}
        reasons = {**self._engine.engine.reasons(), **reasons}
        before = {ident: reason for ident, _, reason in seen.queued}
        self.store.workloads.explain(
            {i: reason for i, reason in reasons.items() if before.get(i, reason) != reason}
        )

    def _snapshot(self) -> Snapshot:
        """The cloud as the store has it, for questions."""
        seen = self._read_store()
        now, nodes = self.clock.now(), self.store.pool.nodes()
        engine = None if self._engine is None else self._engine.engine
        return Snapshot(
            nodes=nodes,
            waiting=list(seen.waiting.values()),
            running=list(seen.running.values()),
            projects={project.name: project for project in self.store.access.projects()},
            usage_s=self._cache.usage_s(now, nodes)
            if engine is None
            else dict(engine.cluster.fair_share.usage_s),
            usage_at=now if engine is None else engine.cluster.fair_share.at,
        )


def _count_held(grants: Sequence[Grant], held: Counter[tuple[NodeId, str, int]]) -> None:
    """Count numbered devices."""
    for grant in grants:
        held.update({(grant.node, grant.kind, index): n for index, n in grant.devices})
        held.update({(grant.node, DeviceKind.CPU, index): n for index, n in grant.cores})


def _are_free(grants: Sequence[Grant], held: Counter[tuple[NodeId, str, int]]) -> bool:
    """Whether nobody in the store holds these devices: the last look before they are given."""
    asked: Counter[tuple[NodeId, str, int]] = Counter()
    _count_held(grants, asked)
    return all(held[device] + milli <= MILLI for device, milli in asked.items())


def _as_inelastic(run: RunningWorkload) -> RunningWorkload:
    """As one that never changes its size."""
    waiting = run.as_pending
    return replace(run, waiting=replace(waiting, gang=replace(waiting.gang, max=None)))


def _matches_record(waiting: PendingWorkload, known: PendingWorkload) -> bool:
    """Whether a workload came back as the desk has it: how long it ran, to the second."""
    near = abs(waiting.done_s - known.done_s) < 1.0
    return near and replace(waiting, done_s=0.0, order=0) == replace(known, done_s=0.0, order=0)
