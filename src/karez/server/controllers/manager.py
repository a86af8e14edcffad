"""The loops that make it so: the pool is watched, the queue is placed, work is looked after.

Each loop's tick catches everything once, logs it and goes on: the next tick looks anew.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from karez.core.jobs import Job
from karez.core.nodes import NodeId, NodeState
from karez.core.ports import Clock, Fabric, NodeLost
from karez.core.settings import Settings
from karez.core.stores.store import Store
from karez.core.workloads import ACTIVE, WorkloadId
from karez.server.controllers.node_eviction import NodeEviction
from karez.server.controllers.orphan_collector import OrphanCollector
from karez.server.controllers.scheduler import Scheduler
from karez.serving.replica_controller import ReplicaController, ServingDeps
from karez.training.controller.controller_deps import ControllerDeps
from karez.training.controller.job_controller import JobController

log = structlog.get_logger()
WORK_S = 1.0
"""Longest pause between two looks at what is to be done; placing something ends it."""
STOP_S = 1.0
"""How long each loop may take to leave its tick; what it does is safe to cut off."""
POOL_S = 2.0
"""Seconds between two looks at the nodes. Node loss under a running gang is noticed sooner, by
that gang's own polling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """What the loops work with once the fabric is there."""

    fabric: Fabric
    tools: ControllerDeps
    serving: ServingDeps
    trust: NodeEviction


class ControlContext(Protocol):
    """What the controllers share with the services of control."""

    @property
    def store(self) -> Store:
        """The truth."""
        ...

    @property
    def clock(self) -> Clock:
        """Control's clock."""
        ...

    @property
    def settings(self) -> Settings:
        """The options of the cloud."""
        ...


class ControllerManager:
    """Three threads, and one more for each active workload."""

    def __init__(
        self, cloud: ControlContext, connect: Callable[[], Edges], owner: str, scheduler: Scheduler
    ) -> None:
        """Nothing runs yet."""
        self._cloud = cloud
        self._connect = connect
        self._owner = owner
        self._scheduler = scheduler
        self._edges: Edges | None = None
        self._halt = threading.Event()
        self._wake = threading.Event()
        self._placed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._controllers: dict[
            WorkloadId, tuple[threading.Thread, JobController | ReplicaController]
        ] = {}
        self._seen: dict[str, str] = {}
        self._tokens: dict[WorkloadId, str] = {}
        self._orphans = OrphanCollector(start_s=cloud.settings.start_s)

    def start(self) -> None:
        """Start them all."""
        self._cloud.store.workloads.drop_leases(self._owner)
        for name, tick, pause_s in (
            ("pool", self._watch_pool, POOL_S),
            ("schedule", self._schedule, self._cloud.settings.tick_s),
            ("work", self._run_workloads, WORK_S),
        ):
            thread = threading.Thread(
                target=self._loop, args=(name, tick, pause_s), name=name, daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def wake(self) -> None:
        """Something new was asked for: look at once."""
        self._wake.set()

    @property
    def fabric(self) -> Fabric | None:
        """The nodes, once they are connected."""
        return None if self._edges is None else self._edges.fabric

    def drop_controller(self, ident: WorkloadId) -> None:
        """Forget who looks after a workload: as if its thread had died. Another one takes over."""
        thread, hand = self._controllers.get(ident, (None, None))
        if thread is not None and hand is not None:
            hand.stand_down()
            thread.join(STOP_S)
            self._cloud.store.workloads.release(ident, self._tokens.pop(ident, ""))
            self._placed.set()

    def alive(self) -> bool:
        """Whether every loop runs and the fabric is connected."""
        return self._edges is not None and all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Let go of everything: the cloud goes down. Nodes of our own end with their Ray."""
        for event in (self._halt, self._wake, self._placed):
            event.set()
        for thread in self._threads:
            thread.join(STOP_S)
        for _, hand in self._controllers.values():
            hand.stand_down()
        if self._edges is not None:
            if self._cloud.settings.ray_address:  # a cluster that outlives this cloud
                self._edges.fabric.stop_nodes()
            self._edges.fabric.close()

    def _loop(self, name: str, tick: Callable[[], None], pause_s: float) -> None:
        while not self._halt.is_set():
            try:
                tick()
            except Exception:
                log.exception("loop.failed", loop=name)
                self._halt.wait(1.0)
            wake = {"schedule": self._wake, "work": self._placed}.get(name, self._halt)
            if wake.wait(pause_s) and wake is not self._halt:
                wake.clear()

    def _watch_pool(self) -> None:
        if self._edges is None:
            self._edges = self._connect()
            log.info("fabric.connected")
        fabric, store, now = self._edges.fabric, self._cloud.store, self._cloud.clock.now()
        nodes = fabric.nodes()
        store.pool.record_nodes(nodes, now=now)
        here = {node.id for node in nodes}
        for node in store.pool.nodes():
            silent_s = now - node.seen_at
            is_late = not 0 <= silent_s <= self._cloud.settings.node_silence_s
            if node.id not in here and node.state != NodeState.LOST and is_late:
                store.pool.set_node(node.id, NodeState.LOST)
                log.warning("node.lost", node=node.id, silent_s=round(silent_s, 1))
        self._edges.trust.evaluate(nodes)
        for node in nodes:
            if self._seen.get(node.id) != node.engine_id:
                self._seen[node.id] = node.engine_id
                log.info("node.seen", node=node.id, devices=len(node.devices))
                self.wake()
            self._collect_orphans(node.id, now)

    def _collect_orphans(self, node: NodeId, now: float) -> None:
        """End what runs on a node and is not held there."""
        assert self._edges is not None
        fabric = self._edges.fabric
        try:
            held = self._cloud.store.workloads.allocations()
            for workload in self._orphans.overdue(node, fabric.processes(node), held, now):
                fabric.purge(node, workload)
                log.info("node.swept", node=node, workload=workload)
        except NodeLost:
            return

    def _schedule(self) -> None:
        started = self._scheduler.tick()
        if started:
            self._placed.set()
            log.info("jobs.placed", count=started)

    def _run_workloads(self) -> None:
        if self._edges is None:
            return
        cloud = self._cloud
        now, lease_s = cloud.clock.now(), cloud.settings.lease_s
        done = [ident for ident, (thread, _) in self._controllers.items() if not thread.is_alive()]
        for ident in done:
            del self._controllers[ident]
            self._tokens.pop(ident, None)
            self.wake()
        if self._controllers:
            cloud.store.workloads.renew(self._owner, now=now, lease_s=lease_s)
        for ident, token in cloud.store.workloads.claim(
            tuple(ACTIVE), owner=self._owner, now=now, lease_s=lease_s
        ):
            self._start_controller(ident, token)

    def _start_controller(self, ident: WorkloadId, token: str) -> None:
        assert self._edges is not None
        store = self._cloud.store
        allocation = store.workloads.allocations().get(ident)
        item = store.workloads.job(ident) or store.workloads.service(ident)
        if allocation is None or item is None:
            log.error("workload.without-allocation", workload=ident)
            return
        hand: JobController | ReplicaController
        if isinstance(item, Job):
            hand = JobController(item, allocation, token, self._edges.tools)
        else:
            hand = ReplicaController(item, allocation, token, self._edges.serving)
        log.info("workload.taken", workload=ident, state=item.state, epoch=allocation.epoch)
        thread = threading.Thread(
            target=self._run_controller, args=(ident, hand), name=ident, daemon=True
        )
        self._controllers[ident] = (thread, hand)
        self._tokens[ident] = token
        thread.start()

    def _run_controller(self, ident: WorkloadId, hand: JobController | ReplicaController) -> None:
        try:
            hand.run()
        except Exception:
            log.exception("workload.dropped", workload=ident)
        self._placed.set()  # whose thread has ended is seen at once, and its devices are free
