"""The scheduler: reads the store, has the engine decide, records, and carries decisions out."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from karez.core.explanations import (
    DefragResult,
    Explanation,
    RelocatedWorkload,
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
from karez.scheduling.explain.explain import explain
from karez.scheduling.explain.what_if import what_if
from karez.scheduling.placement.placement import place_more
from karez.scheduling.preemption.defragment import DefragPlan, plan_defrag
from karez.scheduling.queue.order import SchedulingPolicy
from karez.scheduling.snapshot import Snapshot, engine_from, to_running
from karez.server.controllers.cluster_deltas import DeltaBuilder
from karez.server.controllers.decision_executor import DecisionExecutor
from karez.server.controllers.pending_decisions import LENT_S
from karez.server.controllers.store_view import StoreView
from karez.server.controllers.workload_cache import WorkloadCache

LIVE_POLICY = SchedulingPolicy(preempts=True, fair=True, defragments=True, elastic=True)
PAUSE_S = 5.0
"""Seconds between two passes of the engine while the cluster does not change."""
RESET_AFTER_STEPS = 50_000
"""Passes after which the decision log states the whole cluster, so that its file can rotate."""


@dataclass(slots=True)
class Scheduler:
    """Runs one scheduling pass at a time over the store.

    The engine decides once. What a decision needs others to do first is awaited over later passes.
    """

    store: Store
    clock: Clock
    write: Callable[[str], object] | None = None
    """Takes the lines of the decision log."""
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _engine: RecordedEngine | None = None
    _inventory: tuple[tuple[Node, ...], tuple[Project, ...]] = ((), ())
    """The nodes and projects that the engine has."""
    _decided_at: float = float("-inf")
    _steps: int = 0
    _cache: WorkloadCache = field(init=False)
    _executor: DecisionExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._cache = WorkloadCache(self.store)
        self._executor = DecisionExecutor(store=self.store)

    def tick(self) -> int:
        """Start what fits and record why the rest waits; returns how many were started."""
        with self._lock:
            now = self.clock.now()
            view = self._cache.view()
            if self._steps > RESET_AFTER_STEPS and self._executor.pending.is_empty():
                self._engine, self._steps = None, 0
            delta = self._delta(view, now)
            has_changed = delta != ClusterDelta(at=now)
            if has_changed or (now - self._decided_at >= PAUSE_S and self._may_decide(view)):
                return self._decide(delta, view, now)
            return self._executor.carry_out(view, now)

    def _decide(self, delta: ClusterDelta, view: StoreView, now: float) -> int:
        self._decided_at = now
        self._steps += 1
        recorded, self._engine = self._engine or RecordedEngine(write=self.write), None
        actions = recorded.advance(delta)
        self._engine = recorded  # had `advance` failed, the next pass would start from the store
        self._executor.request(actions, now)
        started = self._executor.carry_out(view, now)
        self._executor.record_reasons(recorded.engine.reasons(), view)
        return started

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
                self._executor.pending.reserved.append((self.clock.now() + LENT_S, grants))
            return grants

    def explain(self, ident: WorkloadId) -> Explanation | None:
        """Explain why a workload waits; None if it does not wait, or starts with the next pass."""
        with self._lock:
            start = self._executor.pending.starts.get(ident)
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
                self._executor.request(recorded.relocate(plan.relocations, now), now)
        return _defrag_result(plan, carried_out=carry_out)

    def _may_decide(self, view: StoreView) -> bool:
        """Whether the passing of time alone may lead to a decision."""
        nodes, _ = self._inventory
        closes = any(node.windows or node.state == NodeState.DRAINING for node in nodes)
        return bool(view.queued) or view.has_elastic() or closes

    def _delta(self, view: StoreView, now: float) -> ClusterDelta:
        """Changes since the last pass; the whole state for an engine that has none yet."""
        nodes = tuple(replace(node, seen_at=0.0) for node in self.store.pool.nodes())
        projects = tuple(self.store.access.projects())
        (nodes_before, projects_before), self._inventory = self._inventory, (nodes, projects)
        if self._engine is None:
            self._executor.pending.clear()
            return self._whole_state(view, now)
        builder = DeltaBuilder(
            engine=self._engine.engine, pending=self._executor.pending, view=view, now=now
        )
        return replace(
            builder.build(),
            nodes=None if nodes == nodes_before else nodes,
            projects=None if projects == projects_before else projects,
        )

    def _whole_state(self, view: StoreView, now: float) -> ClusterDelta:
        nodes, projects = self._inventory
        return ClusterDelta(
            at=now,
            is_reset=True,
            nodes=nodes,
            projects=projects,
            policy=LIVE_POLICY,
            usage_s=self._cache.usage_s(now, nodes),
            running=tuple(map(to_running, view.running.values())),
            arrived=tuple(view.waiting.values()),
        )

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
        )


def _defrag_result(plan: DefragPlan, *, carried_out: bool) -> DefragResult:
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
        carried_out=carried_out,
    )
