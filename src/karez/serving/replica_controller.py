"""Keeps the replicas of one service running: start, wait until ready, restart, stop."""

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from karez.core import environment
from karez.core.grants import Grant
from karez.core.ports import Clock, Engine, Fabric, LogSink, NodeLost
from karez.core.processes import ProcessInfo, ProcessSpec, Staged
from karez.core.services import Service
from karez.core.settings import Settings
from karez.core.stores.store import Store
from karez.core.workloads import Allocation, EndReason, RankView, State, Status

PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses before a crashed replica starts again, growing as Kubernetes' crash back-off does
(10 s doubling to 5 min there; shorter here, since an engine loads in a second)."""
CRASH_LIMIT = 5
"""Crashes of one replica without ever being ready, after which the service has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingDeps:
    """What replica keepers work with."""

    store: Store
    fabric: Fabric
    clock: Clock
    settings: Settings
    logs: LogSink
    engines: Mapping[str, Engine]
    engine_key: str
    """The key that the gateway shows to engines."""


@dataclass(slots=True, kw_only=True)
class _Replica:
    """One replica and how it fares."""

    number: int
    grant: Grant
    life: int = 1
    crashes: int = 0
    start_at: float = 0.0
    asked: bool = False
    view: RankView = field(default_factory=lambda: RankView(rank=0, node="", state="waiting"))  # type: ignore[arg-type]  # no node yet


class ReplicaController:
    """One service's keeper; `run` lives in a thread of its own."""

    def __init__(
        self, service: Service, allocation: Allocation, token: str, tools: ServingDeps
    ) -> None:
        """Take a service under a lease."""
        self.service = service
        self.token = token
        self.tools = tools
        self.epoch = allocation.epoch
        self._over = threading.Event()
        self._status = replace(service.status, reason="")
        self._replicas = [
            _Replica(
                number=number,
                grant=grant,
                view=RankView(rank=number, node=grant.node, state="waiting"),
            )
            for number, grant in enumerate(allocation.grants)
        ]

    def run(self) -> None:
        """Until the service is stopped or has failed, or another control owns it."""
        problem = self._check()
        if problem:
            self._end(State.FAILED, EndReason.INPUT_MISSING, problem)
            return
        self._adopt()
        while not self._over.is_set():
            for replica in self._replicas:
                self._tend(replica)
            self._report()
            self._over.wait(0.25)

    def stand_down(self) -> None:
        """Stop looking after the service; its replicas go on."""
        self._over.set()

    def _check(self) -> str:
        spec = self.service.spec
        engine = self.tools.engines.get(spec.engine)
        if engine is None:
            return f"no engine {spec.engine!r}; installed: {', '.join(self.tools.engines)}"
        artifact = self.tools.store.artifacts.find(spec.model)
        if artifact is None:
            return f"model artifact {spec.model} is gone"
        if artifact.spec.format not in engine.formats:
            loads = ", ".join(engine.formats)
            return f"engine {engine.name} loads {loads}, not {artifact.spec.format}"
        return ""

    def _adopt(self) -> None:
        for replica in self._replicas:
            for info in self._infos(replica):
                life = int(info.key.rsplit(".", 1)[1])
                if life >= replica.life:
                    replica.life, replica.asked = life, True

    def _infos(self, replica: _Replica) -> list[ProcessInfo]:
        try:
            found = self.tools.fabric.processes(replica.grant.node)
        except NodeLost:
            return []
        mine = (i for i in found if i.workload == self.service.id and i.rank == replica.number)
        return sorted(mine, key=lambda info: info.key)

    def _tend(self, replica: _Replica) -> None:
        now = self.tools.clock.now()
        if not replica.asked:
            if now >= replica.start_at:
                self._start(replica)
            return
        try:
            known = {i.key: i for i in self.tools.fabric.processes(replica.grant.node)}
        except NodeLost:
            self._lose_node(replica)
            return
        info = known.get(self._key(replica))
        if info is None:
            replica.asked = False  # its steward forgot it: start again
        elif not info.alive:
            self._crashed(replica, info, now)
        elif replica.view.state != "ready":
            self._look_ready(replica, info)

    def _start(self, replica: _Replica) -> None:
        spec = self.service.spec
        engine = self.tools.engines[spec.engine]
        artifact = self.tools.store.artifacts.find(spec.model)
        if artifact is None:
            return
        weights = [f.path for f in artifact.spec.files if f.path.endswith(".gguf")]
        env = engine.env(
            model_file=(weights or [""])[0].rsplit("/", 1)[-1],
            alias=spec.name,
            tokens=spec.context_tokens,
            parallel=spec.parallel,
        )
        process = ProcessSpec(
            key=self._key(replica),
            workload=self.service.id,
            rank=replica.number,
            epoch=self.epoch,
            command=engine.command(),
            warm=True,
            grant=replica.grant,
            env={**env, environment.ENGINE_KEY: self.tools.engine_key},
            inputs=(Staged(artifact=artifact.id, folder="model", files=artifact.spec.files),),
        )
        replica.asked = True
        replica.view = replace(replica.view, state="starting", url="")
        self._quietly(lambda: self.tools.fabric.start(replica.grant.node, process))

    def _look_ready(self, replica: _Replica, info: ProcessInfo) -> None:
        url = str(info.last_messages.get("listening", {}).get("url", ""))
        if url and _answers(url + self.tools.engines[self.service.spec.engine].ready_path):
            replica.crashes = 0
            replica.view = replace(replica.view, pid=info.pid, state="ready", url=url)

    def _crashed(self, replica: _Replica, info: ProcessInfo, now: float) -> None:
        self._keep_log(replica)
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
        replica.life += 1
        replica.asked, replica.start_at = False, now + pause_s
        replica.view = replace(replica.view, state="crashed", url="")
        self._status = replace(self._status, reason=f"replica {replica.number} {detail}")

    def _lose_node(self, replica: _Replica) -> None:
        """A node is lost: the whole service goes back to the queue to be placed anew."""
        node = replica.grant.node
        self._status = replace(self._status, reason=f"node {node} was lost", ranks=())
        self._over.set()
        for other in self._replicas:
            self._quietly(
                lambda other=other: self.tools.fabric.purge(other.grant.node, self.service.id)  # type: ignore[misc]  # bound now
            )
        now = self.tools.clock.now()
        self.tools.store.workloads.requeue(self.service.id, self.token, self._status, now=now)

    def _report(self) -> None:
        if self._over.is_set():
            return
        fresh = self.tools.store.workloads.service(self.service.id)
        if fresh is None or fresh.state == State.STOPPING:
            self._end(State.CANCELLED, EndReason.CANCELLED, "stopped by request")
            return
        views = tuple(replica.view for replica in self._replicas)
        ready = [view for view in views if view.state == "ready"]
        state = State.RUNNING if ready else State.STARTING
        reason = "" if len(ready) == len(views) else self._status.reason
        status = replace(self._status, ranks=views, reason=reason)
        if status == fresh.status and state == fresh.state:
            return
        now = self.tools.clock.now()
        self._status = status
        done = self.tools.store.workloads.update(
            self.service.id, token=self.token, state=state, status=status, at=now
        )
        if not done and self.tools.store.workloads.service(self.service.id) is None:
            self._over.set()

    def _end(self, state: State, reason: EndReason, detail: str) -> None:
        self._over.set()
        for replica in self._replicas:
            self._keep_log(replica)
            self._quietly(
                lambda replica=replica: self.tools.fabric.purge(  # type: ignore[misc]  # bound now
                    replica.grant.node, self.service.id
                )
            )
        status: Status = replace(self._status, end=reason, reason=detail, ranks=())
        now = self.tools.clock.now()
        self.tools.store.workloads.end(self.service.id, self.token, state, status, now=now)

    def _keep_log(self, replica: _Replica) -> None:
        name = f"replica-{replica.number}.{self.epoch}.{replica.life}"
        size = self.tools.logs.size(self.service.id, name)

        def pull() -> None:
            data = self.tools.fabric.read_log(replica.grant.node, self._key(replica), size, 1 << 20)
            if data:
                self.tools.logs.append(self.service.id, name, data)

        self._quietly(pull)

    def _key(self, replica: _Replica) -> str:
        return f"{self.service.id}.{replica.number}.{replica.life:04d}"

    def _quietly(self, act: Callable[[], None]) -> None:
        try:
            act()
        except NodeLost:
            return  # the next look notices


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own engine's URL
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
