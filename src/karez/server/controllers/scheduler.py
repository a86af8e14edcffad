"""The scheduler: reads the store, has the engine decide, records, and carries decisions out."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from karez.core.explanations import (
    DefragResult,
    Explanation,
    WhatIf,
    WhatIfResult,
)
from karez.core.grants import Grant
from karez.core.identity import Project
from karez.core.node_affinity import ANYWHERE, NodeAffinity
from karez.core.nodes import Node, NodeId, NodeState
from karez.core.ports import Clock
from karez.core.resource_requests import ResourceRequest
from karez.core.stores.store import Store
from karez.core.workloads import State, WorkloadId
from karez.scheduling.decision_log import ClusterDelta, RecordedEngine
from karez.scheduling.decisions import Action
from karez.scheduling.explain.explain import explain
from karez.scheduling.explain.what_if import what_if
from karez.scheduling.placement.placement import place_more
from karez.scheduling.preemption.defragment import defrag_result, plan_defrag
from karez.scheduling.queue.order import SchedulingPolicy
from karez.scheduling.snapshot import Snapshot, engine_from
from karez.server.controllers.budget_watch import BudgetWatch
from karez.server.controllers.decision_executor import DecisionExecutor
from karez.server.controllers.observer import observe, still_owed, whole_state
from karez.server.controllers.pending_decisions import LENT_S, PendingDecisions, Reservation
from karez.server.controllers.reconciler import WithdrawResize, reconcile
from karez.server.controllers.store_view import StoreView
from karez.server.controllers.workload_cache import WorkloadCache

LIVE_POLICY = SchedulingPolicy(
    preempts=True, fair=True, defragments=True, elastic=True, grows_by_gain=True
)
PAUSE_S = 5.0
"""Seconds between two passes of the engine while the cluster does not change."""
RESET_AFTER_STEPS = 50_000
"""Passes after which the decision log states the whole cluster, so that its file can rotate."""


@dataclass(slots=True)
class Scheduler:
    """Runs one scheduling pass at a time over the store.

    The engine decides once. What a decision needs others to do first is awaited over later passes,
    and by the control after this one: the store has it.
    """

    store: Store
    clock: Clock
    write: Callable[[str], object] | None = None
    """Takes the lines of the decision log."""
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _engine: RecordedEngine | None = None
    _inventory: tuple[tuple[Node, ...], tuple[Project, ...], Mapping[str, str]] = ((), (), {})
    """The nodes, the projects, and those of them that may spend no more, as the engine has them."""
    _pending: PendingDecisions | None = None
    """None until the first pass has read what an earlier control left."""
    _decided_at: float = float("-inf")
    _steps: int = 0
    _cache: WorkloadCache = field(init=False)
    _executor: DecisionExecutor = field(init=False)
    _budgets: BudgetWatch = field(init=False)

    def __post_init__(self) -> None:
        self._cache = WorkloadCache(self.store, self.clock)
        self._executor = DecisionExecutor(store=self.store)
        self._budgets = BudgetWatch(self.store.usage)

    def tick(self) -> int:
        """Start what fits and record why the rest waits; returns how many were started."""
        with self._lock:
            now = self.clock.now()
            view = self._cache.view()
            pending = self._pending
            if self._steps > RESET_AFTER_STEPS and pending is not None and pending.is_empty():
                self._engine, self._steps = None, 0
            pending, delta = self._observe(view, now)
            has_changed = delta != ClusterDelta(at=now)
            if has_changed or (now - self._decided_at >= PAUSE_S and self._may_decide(view)):
                return self._decide(delta, pending, view, now)
            return self._carry_out((), pending, view, now)

    def _decide(
        self, delta: ClusterDelta, pending: PendingDecisions, view: StoreView, now: float
    ) -> int:
        self._decided_at = now
        self._steps += 1
        recorded, self._engine = self._engine or RecordedEngine(write=self.write, learns=True), None
        actions = recorded.advance(delta)
        self._engine = recorded  # had `advance` failed, the next pass would start from the store
        started = self._carry_out(actions, pending, view, now)
        self._executor.record_reasons(recorded.engine.reasons(), self._owed, view)
        return started

    def _carry_out(
        self, decided: Sequence[Action], pending: PendingDecisions, view: StoreView, now: float
    ) -> int:
        pending, writes = reconcile(view, pending, decided, now)
        self._executor.log(decided)
        try:
            started = self._executor.carry_out(pending, writes, now)
        except Exception:
            self._engine = self._pending = None  # the next pass begins with what was stored
            raise
        self._pending = pending
        return started

    @property
    def _owed(self) -> PendingDecisions:
        return self._pending or PendingDecisions()

    def find_grants(
        self,
        need: ResourceRequest,
        count: int,
        avoid: frozenset[NodeId],
        among: NodeAffinity = ANYWHERE,
    ) -> tuple[Grant, ...]:
        """Find free devices for more workers of a gang that runs already.

        They are reserved for a while, so that no other workload is given them meanwhile.
        """
        with self._lock:
            if self._engine is None:
                self.tick()
            recorded = self._engine
            if recorded is None:
                return ()
            pool = recorded.engine.cluster.pool
            grants = place_more(need, count, pool, avoid=avoid, among=among)
            if not self._executor.are_free(grants):
                pool.release(grants)  # who was asked to yield holds them still
                return ()
            recorded.note_reserved(grants)
            if grants:
                lent = Reservation(grants=grants, until=self.clock.now() + LENT_S)
                self._pending = replace(self._owed, reserved=(*self._owed.reserved, lent))
                self._executor.save(self._pending)
            return grants

    def explain(self, ident: WorkloadId) -> Explanation | None:
        """Explain why a workload waits; None if it does not wait, or starts with the next pass."""
        with self._lock:
            start = self._owed.starts.get(ident)
            why = explain(self._snapshot(), ident, now=self.clock.now(), policy=LIVE_POLICY)
        if start is None:
            return why
        why = why or Explanation(id=ident, name=ident, state=State.QUEUED, reason="")
        return replace(why, reason=start.reason)

    def what_if(self, question: WhatIf) -> WhatIfResult:
        """Answer what a hypothetical change would do. Raises NotFound."""
        with self._lock:
            return what_if(self._snapshot(), question, now=self.clock.now(), policy=LIVE_POLICY)

    def defragment(self, *, carry_out: bool) -> DefragResult:
        """Plan moves that free whole nodes; with `carry_out`, request these moves."""
        with self._lock:
            now = self.clock.now()
            recorded = self._engine
            cluster = (
                engine_from(self._snapshot(), LIVE_POLICY, now).cluster
                if recorded is None
                else recorded.engine.cluster
            )
            plan = plan_defrag(cluster, now)
            if carry_out and recorded is not None:
                decided = recorded.relocate(plan.relocations, now)
                self._carry_out(decided, self._owed, self._cache.view(), now)
        return defrag_result(plan, carried_out=carry_out)

    def _may_decide(self, view: StoreView) -> bool:
        """Whether the passing of time alone may lead to a decision."""
        nodes, _, _ = self._inventory
        closes = any(node.windows or node.state == NodeState.DRAINING for node in nodes)
        return bool(view.queued) or view.has_elastic() or closes

    def _observe(self, view: StoreView, now: float) -> tuple[PendingDecisions, ClusterDelta]:
        """Changes since the last pass; the whole state for an engine that has none yet."""
        nodes = tuple(replace(node, seen_at=0.0) for node in self.store.pool.nodes())
        projects = tuple(self.store.access.projects())
        over = self._budgets.over(projects, now)
        before, self._inventory = self._inventory, (nodes, projects, over)
        if self._engine is None:
            pending = self._inherited(view, nodes, now)
            delta = replace(
                whole_state(pending, view, now),
                policy=LIVE_POLICY,
                usage_s=self._cache.usage_s(now, nodes),
            )
            return pending, replace(delta, nodes=nodes, projects=projects, over_budget=over)
        pending, delta = observe(self._engine.engine, self._owed, view, nodes, now)
        return pending, replace(
            delta,
            nodes=None if nodes == before[0] else nodes,
            projects=None if projects == before[1] else projects,
            over_budget=None if over == before[2] else over,
        )

    def _inherited(self, view: StoreView, nodes: Sequence[Node], now: float) -> PendingDecisions:
        """What the control before this one left pending; nothing after an engine has failed."""
        if self._pending is not None:
            withdrawn = [WithdrawResize(id=ident) for ident in self._pending.resizing]
            self._pending = self._pending.forgotten()
            self._executor.carry_out(self._pending, withdrawn, now)
            return self._pending
        owed = still_owed(self._executor.load(), view, nodes, now)
        self._executor.go_on(owed, now)
        self._pending = owed
        return owed

    def _snapshot(self) -> Snapshot:
        """The cluster as the store has it, for questions."""
        view = self._cache.view()
        now, nodes = self.clock.now(), self.store.pool.nodes()
        engine = None if self._engine is None else self._engine.engine
        return Snapshot(
            nodes=nodes,
            waiting=list(view.waiting.values()),
            running=list(view.running.values()),
            projects={project.name: project for project in self.store.access.projects()},
            usage_s=self._cache.usage_s(now, nodes)
            if engine is None
            else dict(engine.cluster.fair_share.usage_s),
            usage_at=now if engine is None else engine.cluster.fair_share.at,
            over_budget=self._budgets.over(self.store.access.projects(), now),
        )
