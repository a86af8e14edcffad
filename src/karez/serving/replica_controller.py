"""Replica controller: keeps the process of one replica running until the replica ends."""

import threading
from collections.abc import Callable
from dataclasses import replace

from karez.core.nodes import NodeState
from karez.core.ports import NodeLost
from karez.core.processes import ProcessInfo
from karez.core.services import READY, Replica
from karez.core.workloads import ENDED, Allocation, EndReason, RankView, State, Status
from karez.node_events.stream import NodeEventStream
from karez.serving.replica_processes import ReplicaProcess, ServingDeps

PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses before a crashed replica starts again, growing as Kubernetes' crash back-off does
(10 s doubling to 5 min there; shorter here, since an engine loads in a second)."""
CRASH_LIMIT = 5
"""Crashes without ever being ready, after which the replica has failed."""
CHECK_S = 0.25
"""Seconds between two checks of a replica that is not ready."""
CHECK_READY_S = 60.0
"""Seconds between two checks of a replica that is ready: the end of a process, the loss of a node
and what users ask are all reported."""
DRAIN_S = 30.0
"""How long a replica that is let go of may work on the requests that it has; as Kubernetes' grace
period for a pod. Streams that take longer go on at another replica."""
STOPS = (State.STOPPING, *ENDED)


class ReplicaController:
    """Controls one replica, a step at a time; no two threads may be in a step."""

    def __init__(
        self,
        replica: Replica,
        allocation: Allocation,
        token: str,
        deps: ServingDeps,
        wake: Callable[[], None],
    ) -> None:
        """Take a replica under a lease. `wake` is called when a step has work to do."""
        self.replica = replica
        self.token = token
        self.deps = deps
        self._number = replica.number
        (self._grant,) = allocation.grants
        self._is_stopped = threading.Event()
        self._has_begun = self._has_request = False
        self._pause_s = CHECK_S
        self._draining_since: float | None = None
        self._written: tuple[State | None, Status] | None = None
        """What was written last."""
        self._status = replace(replica.status, reason="")
        self._view = RankView(rank=0, node=self._grant.node, state="waiting")
        self._process = ReplicaProcess(replica, allocation, deps)
        self._events = NodeEventStream(deps.hub, replica.id, wake)

    @property
    def is_slow(self) -> bool:
        """Whether the next step may take long: each asks a node and an engine."""
        return True

    def step(self) -> float | None:
        """Check the replica. Returns when the next check is due; None: there is none.

        There is none once the replica is stopped or has failed, or another control owns it.
        """
        if not self._has_begun and not self._is_stopped.is_set():
            self._begin()
        self._take_reports()
        if not self._is_stopped.is_set():
            self._check()
            self._report()
        if self._is_stopped.is_set():
            return None
        pause_s = CHECK_READY_S if self._view.state == READY else self._pause_s
        return self.deps.clock.now() + pause_s

    def note_request(self) -> None:
        """Look in the store, at the next step, whether the replica is to stop."""
        self._has_request = True

    def stand_down(self) -> None:
        """Stop controlling the replica, which goes on."""
        self._is_stopped.set()

    def close(self) -> None:
        """Follow the node no more."""
        self._events.close()

    def _begin(self) -> None:
        """Adopt the process that runs already, unless the replica can never start."""
        self._has_begun = True
        if problem := self._problem():
            self._end(State.FAILED, EndReason.INPUT_MISSING, problem)
            return
        self._process.adopt()
        if self._process.run.is_requested and self.replica.is_ready:
            (self._view,) = self.replica.status.ranks  # it goes on to answer
        self._events.follow(self._grant.node)

    def _take_reports(self) -> None:
        """Note whether the node is lost; all else is asked for in the check."""
        while (report := self._events.next()) is not None:
            if report[1] is None and not self._is_stopped.is_set():
                self._requeue()

    def _problem(self) -> str:
        """Why the replica can never start; empty if it can."""
        spec = self.replica.spec
        engine = self.deps.engines.get(spec.engine)
        if engine is None:
            return f"no engine {spec.engine!r}; installed: {', '.join(self.deps.engines)}"
        if (artifact := self.deps.store.artifacts.find(spec.model)) is None:
            return f"model artifact {spec.model} is gone"
        if artifact.spec.format not in (loads := engine.capabilities.formats):
            return f"engine {engine.name} loads {', '.join(loads)}, not {artifact.spec.format}"
        return ""

    def _check(self) -> None:
        now, run = self.deps.clock.now(), self._process.run
        if not run.is_requested:
            if now >= run.start_at:
                self._start()
            return
        try:
            info = self._process.find()
        except NodeLost:
            self._requeue()
            return
        if info is None:
            run.is_requested = False  # its node agent restarted and forgot it: start again
        elif not info.alive:
            self._crashed(info, now)
        elif not self._view.url or self._view.pid != info.pid:
            self._ask(info)
        else:
            self._status = replace(self._status, memory_bytes=self._process.memory_bytes(info))

    def _start(self) -> None:
        if self._process.start():
            self._process.run.is_requested = True
            self._show("starting")
        else:
            gone = "its model, an adapter or its environment is gone"
            self._end(State.FAILED, EndReason.INPUT_MISSING, gone)

    def _show(self, state: str, url: str = "", pid: int = 0) -> None:
        """Let users see a state, and since when."""
        since = self._view.since if state == self._view.state else self.deps.clock.now()
        self._view = replace(self._view, state=state, url=url, pid=pid, since=since)

    def _ask(self, info: ProcessInfo) -> None:
        """Look whether a process is ready; one that is slow to answer is asked less often."""
        began_at = self.deps.clock.now()
        url, wrong = self._process.ready_url(info)
        self._pause_s = max(CHECK_S, self.deps.clock.now() - began_at)
        if wrong:
            self._end(State.FAILED, EndReason.START_FAILED, f"replica {self._number}: {wrong}")
        elif url:
            self._process.run.crashes = 0
            self._show(READY, url, info.pid)

    def _crashed(self, info: ProcessInfo, now: float) -> None:
        self._process.store_log()
        run = self._process.run
        run.crashes += 1
        detail = (
            f"replica {self.replica.number} {info.error or f'ended with code {info.exit_code}'}"
        )
        if run.crashes >= CRASH_LIMIT:
            end = EndReason.START_FAILED
            self._end(State.FAILED, end, f"{detail}, {run.crashes} times in a row")
            return
        run.attempt += 1
        run.is_requested = False
        run.start_at = now + PAUSES_S[min(run.crashes, len(PAUSES_S)) - 1]
        self._show("crashed")
        self._status = replace(self._status, reason=detail, retries=self._status.retries + 1)

    def _requeue(self) -> None:
        """Return the replica to the queue after the loss of its node.

        The node is marked as lost, so that nothing is placed there until it answers.
        """
        for member in self.deps.store.pool.nodes([self._grant.node]):
            if member.state == NodeState.READY:
                self.deps.store.pool.set_node(member.id, NodeState.LOST)
        status = replace(self._status, reason=f"node {self._grant.node} was lost", ranks=())
        self._is_stopped.set()
        self._process.purge()
        now = self.deps.clock.now()
        workloads = self.deps.store.workloads
        if not workloads.requeue(self.replica.id, self.token, status, now=now):
            self._end(State.CANCELLED, EndReason.CANCELLED, "it was to stop, and its node was lost")
        self.deps.wake()

    def _report(self) -> None:
        """Write the state of the replica to the store, if it has changed."""
        if self._is_stopped.is_set() or self._is_over():
            return
        is_draining = self._draining_since is not None
        state = None if is_draining else State.RUNNING if self._view.url else State.STARTING
        reason = "" if self._view.url else self._status.reason
        status = replace(self._status, ranks=(self._view,), reason=reason)
        if (state, status) == self._written:
            return
        self._status, self._written = status, (state, status)
        if self.deps.store.workloads.update(
            self.replica.id, token=self.token, state=state, status=status, at=self.deps.clock.now()
        ):
            self.deps.wake()
            return
        self._has_request = True
        if is_draining or (not self._is_over() and self._draining_since is None):
            self._is_stopped.set()  # another control owns the replica

    def _is_over(self) -> bool:
        """End the replica if that was asked for, once its requests are answered."""
        if self._draining_since is None and self._has_request:
            self._has_request = False
            stored = self.deps.store.workloads.by_id(self.replica.id)
            if stored is not None and stored.state != State.STOPPING:
                return False
            self._draining_since = self.deps.clock.now()
        if self._draining_since is None or self._is_busy(self._draining_since):
            return False
        self._end(State.CANCELLED, EndReason.CANCELLED, "it is not needed any more")
        return True

    def _is_busy(self, since: float) -> bool:
        """Whether a replica that is let go of may work on requests; it gets no more of them."""
        service = self.deps.store.workloads.service(self.replica.service)
        url = self._view.url
        if not url or service is None or service.state in STOPS:
            return False
        self._show("draining", url, self._view.pid)
        if self.deps.clock.now() - since >= DRAIN_S:
            return False
        return self.deps.loads.inflight(url, since) != 0

    def _end(self, state: State, reason: EndReason, detail: str) -> None:
        self._is_stopped.set()
        self._process.store_log()
        self._process.purge()
        status = replace(self._status, end=reason, reason=detail, ranks=())
        now = self.deps.clock.now()
        self.deps.store.workloads.end(self.replica.id, self.token, state, status, now=now)
        self.deps.wake()
