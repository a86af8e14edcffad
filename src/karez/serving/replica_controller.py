"""Replica controller: keeps the replicas of one service running until the service ends."""

import threading
from collections.abc import Callable
from dataclasses import replace

from karez.core.nodes import NodeState
from karez.core.ports import NodeLost
from karez.core.processes import ProcessInfo
from karez.core.services import Service
from karez.core.workloads import Allocation, EndReason, RankView, State, Status
from karez.node_events.stream import NodeEventStream
from karez.serving.replica_processes import Replica, ReplicaProcesses, ServingDeps

PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses before a crashed replica starts again, growing as Kubernetes' crash back-off does
(10 s doubling to 5 min there; shorter here, since an engine loads in a second)."""
CRASH_LIMIT = 5
"""Crashes of one replica without ever being ready, after which the service has failed."""
CHECK_S = 0.25
"""Seconds between two checks of a service of which a replica is not ready."""
CHECK_READY_S = 60.0
"""Seconds between two checks of a service that is ready: the end of a process, the loss of a node
and what users ask are all reported."""


class ReplicaController:
    """Controls one service, a step at a time; no two threads may be in a step."""

    def __init__(
        self,
        service: Service,
        allocation: Allocation,
        token: str,
        deps: ServingDeps,
        wake: Callable[[], None],
    ) -> None:
        """Take a service under a lease. `wake` is called when a step has work to do."""
        self.service = service
        self.token = token
        self.deps = deps
        self._is_stopped = threading.Event()
        self._has_begun = False
        self._has_request = False
        self._written: tuple[State, Status] | None = None
        """What was written last."""
        self._status = replace(service.status, reason="")
        self._processes = ReplicaProcesses(service, allocation.epoch, deps)
        self._events = NodeEventStream(deps.hub, service.id, wake)
        self._replicas = [
            Replica(
                number=number,
                grant=grant,
                view=RankView(rank=number, node=grant.node, state="waiting"),
            )
            for number, grant in enumerate(allocation.grants)
        ]

    @property
    def is_slow(self) -> bool:
        """Whether the next step may take long: each asks nodes and engines."""
        return True

    def step(self) -> float | None:
        """Check the replicas. Returns when the next check is due; None: there is none.

        There is none once the service is stopped or has failed, or another control owns it.
        """
        if not self._has_begun and not self._is_stopped.is_set():
            self._begin()
        self._take_reports()
        if not self._is_stopped.is_set():
            for replica in self._replicas:
                self._check(replica)
            self._report()
        if self._is_stopped.is_set():
            return None
        is_ready = all(replica.view.state == "ready" for replica in self._replicas)
        return self.deps.clock.now() + (CHECK_READY_S if is_ready else CHECK_S)

    def note_request(self) -> None:
        """Look in the store, at the next step, whether the service is to stop."""
        self._has_request = True

    def stand_down(self) -> None:
        """Stop controlling the service; its replicas go on."""
        self._is_stopped.set()

    def close(self) -> None:
        """Follow the nodes no more."""
        self._events.close()

    def _begin(self) -> None:
        """Adopt the replicas that run already, unless the service can never start."""
        self._has_begun = True
        if problem := self._problem():
            self._end(State.FAILED, EndReason.INPUT_MISSING, problem)
            return
        for replica in self._replicas:
            self._processes.adopt(replica)
            self._events.follow(replica.grant.node)

    def _take_reports(self) -> None:
        """Note which nodes are lost; all else is asked for in the check."""
        while (report := self._events.next()) is not None:
            node, event = report
            on_it = [replica for replica in self._replicas if replica.grant.node == node]
            if event is None and on_it and not self._is_stopped.is_set():
                self._requeue(on_it[0])

    def _problem(self) -> str:
        """Why the service can never start; empty if it can."""
        spec = self.service.spec
        engine = self.deps.engines.get(spec.engine)
        if engine is None:
            return f"no engine {spec.engine!r}; installed: {', '.join(self.deps.engines)}"
        artifact = self.deps.store.artifacts.find(spec.model)
        if artifact is None:
            return f"model artifact {spec.model} is gone"
        if artifact.spec.format not in engine.formats:
            loads = ", ".join(engine.formats)
            return f"engine {engine.name} loads {loads}, not {artifact.spec.format}"
        return ""

    def _check(self, replica: Replica) -> None:
        now = self.deps.clock.now()
        if not replica.is_requested:
            if now >= replica.start_at and self._processes.start(replica):
                replica.is_requested = True
                replica.view = replace(replica.view, state="starting", url="")
            return
        try:
            info = self._processes.find(replica)
        except NodeLost:
            self._requeue(replica)
            return
        if info is None:
            replica.is_requested = False  # its node agent restarted and forgot it: start again
        elif not info.alive:
            self._crashed(replica, info, now)
        elif replica.view.state != "ready":
            url = self._processes.ready_url(replica, info)
            if url:
                replica.crashes = 0
                replica.view = replace(replica.view, pid=info.pid, state="ready", url=url)

    def _crashed(self, replica: Replica, info: ProcessInfo, now: float) -> None:
        self._processes.store_log(replica)
        replica.crashes += 1
        detail = info.error or f"ended with code {info.exit_code}"
        if replica.crashes >= CRASH_LIMIT:
            self._end(
                State.FAILED,
                EndReason.START_FAILED,
                f"replica {replica.number} {detail}, {replica.crashes} times in a row",
            )
            return
        pause_s = PAUSES_S[min(replica.crashes, len(PAUSES_S)) - 1]
        replica.attempt += 1
        replica.is_requested, replica.start_at = False, now + pause_s
        replica.view = replace(replica.view, state="crashed", url="")
        self._status = replace(self._status, reason=f"replica {replica.number} {detail}")

    def _requeue(self, lost: Replica) -> None:
        """Return the whole service to the queue after the loss of a node.

        The node is marked as lost, so that nothing is placed there until it answers.
        """
        for member in self.deps.store.pool.nodes([lost.grant.node]):
            if member.state == NodeState.READY:
                self.deps.store.pool.set_node(member.id, NodeState.LOST)
        self._status = replace(self._status, reason=f"node {lost.grant.node} was lost", ranks=())
        self._is_stopped.set()
        for replica in self._replicas:
            self._processes.purge(replica)
        now = self.deps.clock.now()
        self.deps.store.workloads.requeue(self.service.id, self.token, self._status, now=now)

    def _report(self) -> None:
        """Write the state of the replicas to the store, if it has changed."""
        if self._is_stopped.is_set() or self._stop_if_asked():
            return
        views = tuple(replica.view for replica in self._replicas)
        ready = [view for view in views if view.state == "ready"]
        state = State.RUNNING if ready else State.STARTING
        reason = "" if len(ready) == len(views) else self._status.reason
        status = replace(self._status, ranks=views, reason=reason)
        if (state, status) == self._written:
            return
        self._status, self._written = status, (state, status)
        now = self.deps.clock.now()
        if not self.deps.store.workloads.update(
            self.service.id, token=self.token, state=state, status=status, at=now
        ):
            self._has_request = True
            if not self._stop_if_asked():
                self._is_stopped.set()  # another control owns the service

    def _stop_if_asked(self) -> bool:
        """Stop the service if that was asked for."""
        if not self._has_request:
            return False
        self._has_request = False
        stored = self.deps.store.workloads.service(self.service.id)
        if stored is not None and stored.state != State.STOPPING:
            return False
        self._end(State.CANCELLED, EndReason.CANCELLED, "stopped by request")
        return True

    def _end(self, state: State, reason: EndReason, detail: str) -> None:
        self._is_stopped.set()
        for replica in self._replicas:
            self._processes.store_log(replica)
            self._processes.purge(replica)
        status: Status = replace(self._status, end=reason, reason=detail, ranks=())
        now = self.deps.clock.now()
        self.deps.store.workloads.end(self.service.id, self.token, state, status, now=now)
