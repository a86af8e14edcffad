"""Replica controller: keeps the replicas of one service running until the service ends."""

import threading
from dataclasses import replace

from karez.core.ports import NodeLost
from karez.core.processes import ProcessInfo
from karez.core.services import Service
from karez.core.workloads import Allocation, EndReason, RankView, State, Status
from karez.serving.replica_processes import Replica, ReplicaProcesses, ServingDeps

PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses before a crashed replica starts again, growing as Kubernetes' crash back-off does
(10 s doubling to 5 min there; shorter here, since an engine loads in a second)."""
CRASH_LIMIT = 5
"""Crashes of one replica without ever being ready, after which the service has failed."""
CHECK_S = 0.25
"""Seconds between two checks of the replicas."""


class ReplicaController:
    """Controls one service, a step at a time; no two threads may be in a step."""

    def __init__(
        self, service: Service, allocation: Allocation, token: str, deps: ServingDeps
    ) -> None:
        """Take a service under a lease."""
        self.service = service
        self.token = token
        self.deps = deps
        self._is_stopped = threading.Event()
        self._has_begun = False
        self._status = replace(service.status, reason="")
        self._processes = ReplicaProcesses(service, allocation.epoch, deps)
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
        if not self._is_stopped.is_set():
            for replica in self._replicas:
                self._check(replica)
            self._report()
        return None if self._is_stopped.is_set() else self.deps.clock.now() + CHECK_S

    def stand_down(self) -> None:
        """Stop controlling the service; its replicas go on."""
        self._is_stopped.set()

    def _begin(self) -> None:
        """Adopt the replicas that run already, unless the service can never start."""
        self._has_begun = True
        if problem := self._problem():
            self._end(State.FAILED, EndReason.INPUT_MISSING, problem)
            return
        for replica in self._replicas:
            self._processes.adopt(replica)

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
            url = self._processes.ready_url(info)
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
        """Return the whole service to the queue after the loss of a node."""
        self._status = replace(self._status, reason=f"node {lost.grant.node} was lost", ranks=())
        self._is_stopped.set()
        for replica in self._replicas:
            self._processes.purge(replica)
        now = self.deps.clock.now()
        self.deps.store.workloads.requeue(self.service.id, self.token, self._status, now=now)

    def _report(self) -> None:
        """Write the state of the replicas to the store, if it has changed."""
        if self._is_stopped.is_set():
            return
        workloads = self.deps.store.workloads
        stored = workloads.service(self.service.id)
        if stored is None or stored.state == State.STOPPING:
            self._end(State.CANCELLED, EndReason.CANCELLED, "stopped by request")
            return
        views = tuple(replica.view for replica in self._replicas)
        ready = [view for view in views if view.state == "ready"]
        state = State.RUNNING if ready else State.STARTING
        reason = "" if len(ready) == len(views) else self._status.reason
        status = replace(self._status, ranks=views, reason=reason)
        if status == stored.status and state == stored.state:
            return
        self._status = status
        now = self.deps.clock.now()
        is_written = workloads.update(
            self.service.id, token=self.token, state=state, status=status, at=now
        )
        if not is_written and workloads.service(self.service.id) is None:
            self._is_stopped.set()

    def _end(self, state: State, reason: EndReason, detail: str) -> None:
        self._is_stopped.set()
        for replica in self._replicas:
            self._processes.store_log(replica)
            self._processes.purge(replica)
        status: Status = replace(self._status, end=reason, reason=detail, ranks=())
        now = self.deps.clock.now()
        self.deps.store.workloads.end(self.service.id, self.token, state, status, now=now)
