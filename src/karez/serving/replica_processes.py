"""The process of a replica on its node: start, find, check, read its log, purge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from karez.core import environment
from karez.core.artifacts import FileEntry
from karez.core.codec import to_text
from karez.core.engines import EngineLaunch, adapter_folder
from karez.core.messages.reports import EngineMemoryReport, ListeningReport
from karez.core.ports import Clock, Engine, Fabric, LogSink, NodeLost
from karez.core.processes import ProcessInfo, ProcessSpec, Staged
from karez.core.python_environments import PythonEnvironment
from karez.core.services import Replica, ServiceSpec
from karez.core.settings import Settings
from karez.core.stores.store import Store
from karez.core.workloads import Allocation
from karez.node_events.hub import NodeEventHub
from karez.serving.readiness import Readiness
from karez.serving.service_loads import ServiceLoads

log = structlog.get_logger()
LOG_PIECE_BYTES = 1 << 20
"""Most bytes of a replica's output that are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingDeps:
    """What replica controllers work with."""

    store: Store
    fabric: Fabric
    hub: NodeEventHub
    """Delivers the events of nodes."""
    clock: Clock
    settings: Settings
    logs: LogSink
    engines: Mapping[str, Engine]
    engine_key: str
    """The key that the gateway shows to engines."""
    ask: Callable[[str, str, ServiceSpec, str], Readiness]
    """Asks an engine whether it is ready, as readiness.ask_engine."""
    loads: ServiceLoads
    """What the gateway says of requests."""
    wake: Callable[[], None]
    """Looks at the services at once: one of their replicas has changed."""


@dataclass(slots=True, kw_only=True)
class Run:
    """How often a replica was started under its grant, and how it runs."""

    attempt: int = 1
    crashes: int = 0
    """Crashes in a row without having been ready."""
    start_at: float = 0.0
    is_requested: bool = False
    """Whether its node was asked to start it."""


def is_at(url: str, address: str) -> bool:
    """Whether a URL leads to a host: what a process says of itself goes nowhere else."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and parts.hostname == address and parts.username is None
    except ValueError:
        return False


def launch_of(spec: ServiceSpec, files: Sequence[FileEntry]) -> EngineLaunch:
    """What the engine of a service is started with, whose model has these files."""
    weights = [file.path for file in files if file.path.endswith(".gguf")]
    return EngineLaunch(
        alias=spec.name,
        task=spec.task,
        model_file=(weights or [""])[0].rsplit("/", 1)[-1],
        tokens=spec.context_tokens,
        parallel=spec.parallel,
        adapters=tuple(adapter.name for adapter in spec.adapters),
    )


class ReplicaProcess:
    """Calls the node of one replica."""

    def __init__(self, replica: Replica, allocation: Allocation, deps: ServingDeps) -> None:
        """Work for a replica under the epoch of its allocation."""
        self._replica, self._epoch, self._deps = replica, allocation.epoch, deps
        (self._grant,) = allocation.grants
        self.run = Run()

    def adopt(self) -> None:
        """Take over the newest process that an earlier controller started."""
        try:
            infos = self._deps.fabric.processes(self._grant.node)
        except NodeLost:
            return
        for info in infos:
            if info.workload == self._replica.id:
                attempt = int(info.key.rsplit(".", 1)[1])
                if attempt >= self.run.attempt:
                    self.run.attempt, self.run.is_requested = attempt, True

    def find(self) -> ProcessInfo | None:
        """The process of the current attempt. Raises NodeLost."""
        infos = {info.key: info for info in self._deps.fabric.processes(self._grant.node)}
        return infos.get(self._key)

    def start(self) -> bool:
        """Start it; returns False if an artifact that it needs is gone."""
        spec = self._process_spec()
        if spec is None:
            return False
        self._quietly(lambda: self._deps.fabric.start(self._grant.node, spec))
        return True

    def ready_url(self, info: ProcessInfo) -> tuple[str, str]:
        """The URL of a process that answers, on its own node; empty while it does not.

        Beside it why the process never will, if that is known.
        """
        listening = info.last(ListeningReport)
        url = "" if listening is None else listening.url
        nodes = self._deps.store.pool.nodes([self._grant.node])
        if url and not any(is_at(url, node.address) for node in nodes):
            log.warning("replica.elsewhere", process=info.key, url=url)
            return "", ""
        if not url:
            return "", ""
        spec = self._replica.spec
        path = self._deps.engines[spec.engine].ready_path
        is_ready, wrong = self._deps.ask(url, path, spec, self._deps.engine_key)
        return (url if is_ready else ""), wrong

    def memory_bytes(self, info: ProcessInfo) -> int:
        """The most memory that the engine has taken, as far as it has told."""
        told = info.last(EngineMemoryReport)
        return 0 if told is None else told.bytes

    def purge(self) -> None:
        """End what is left of the replica on its node."""
        self._quietly(lambda: self._deps.fabric.purge(self._grant.node, self._replica.id))

    def store_log(self) -> None:
        """Append the newest output to a log file of the service."""
        logs, service = self._deps.logs, self._replica.service
        name = f"replica-{self._replica.number}.{self._epoch}.{self.run.attempt}"
        size = logs.size(service, name)

        def pull() -> None:
            chunk = self._deps.fabric.read_log(self._grant.node, self._key, size, LOG_PIECE_BYTES)
            if chunk.data:
                logs.append(service, name, chunk)

        self._quietly(pull)

    def _process_spec(self) -> ProcessSpec | None:
        spec = self._replica.spec
        engine = self._deps.engines[spec.engine]
        wanted = [("model", spec.model)]
        wanted += [(adapter_folder(n), one.model) for n, one in enumerate(spec.adapters)]
        inputs = []
        for folder, ident in wanted:
            artifact = self._deps.store.artifacts.find(ident)
            if artifact is None:
                return None
            inputs.append(Staged(artifact=artifact.id, folder=folder, files=artifact.spec.files))
        packages = self._packages(spec.environment)
        if spec.environment and packages is None:
            return None
        launch = launch_of(spec, inputs[0].files)
        return ProcessSpec(
            key=self._key,
            workload=self._replica.id,
            rank=0,
            epoch=self._epoch,
            project=spec.project,
            command=engine.command(),
            warm=True,
            grant=self._grant,
            env={
                environment.ENGINE: to_text(launch),
                environment.ENGINE_KEY: self._deps.engine_key,
            },
            inputs=tuple(inputs),
            environment=packages,
        )

    def _packages(self, ident: str) -> PythonEnvironment | None:
        found = self._deps.store.artifacts.find(ident) if ident else None
        if found is None:
            return None
        return PythonEnvironment(artifact=found.id, name=found.spec.name, files=found.spec.files)

    @property
    def _key(self) -> str:
        return f"{self._replica.id}.0.{self.run.attempt:04d}"

    def _quietly(self, act: Callable[[], None]) -> None:
        try:
            act()
        except NodeLost:
            return  # the next check notices
