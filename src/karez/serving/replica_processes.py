"""Processes of a service's replicas on their nodes: start, find, check, read logs, purge."""

import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import structlog

from karez.core import environment
from karez.core.grants import Grant
from karez.core.messages.reports import ListeningReport
from karez.core.ports import Clock, Engine, Fabric, LogSink, NodeLost
from karez.core.processes import ProcessInfo, ProcessSpec, Staged
from karez.core.services import Service
from karez.core.settings import Settings
from karez.core.stores.store import Store
from karez.core.workloads import RankView
from karez.node_events.hub import NodeEventHub

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
    answers: Callable[[str], bool]
    """Whether an engine answers at a URL; waits a few seconds at most."""


@dataclass(slots=True, kw_only=True)
class Replica:
    """One replica: its grant, its attempts, and its state as users see it."""

    number: int
    grant: Grant
    attempt: int = 1
    crashes: int = 0
    """Crashes in a row without the replica having been ready."""
    start_at: float = 0.0
    is_requested: bool = False
    """Whether its node was asked to start it."""
    view: RankView = field(default_factory=lambda: RankView(rank=0, node="", state="waiting"))  # type: ignore[arg-type]  # no node yet


def is_at(url: str, address: str) -> bool:
    """Whether a URL leads to a host: what a process says of itself goes nowhere else."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and parts.hostname == address and parts.username is None
    except ValueError:
        return False


class ReplicaProcesses:
    """Calls the nodes of one service's replicas."""

    def __init__(self, service: Service, epoch: int, deps: ServingDeps) -> None:
        """Work for a service under an epoch."""
        self._service, self._epoch, self._deps = service, epoch, deps

    def adopt(self, replica: Replica) -> None:
        """Take over the newest process of a replica that an earlier controller started."""
        try:
            infos = self._deps.fabric.processes(replica.grant.node)
        except NodeLost:
            return
        for info in sorted(infos, key=lambda info: info.key):
            if info.workload == self._service.id and info.rank == replica.number:
                attempt = int(info.key.rsplit(".", 1)[1])
                if attempt >= replica.attempt:
                    replica.attempt, replica.is_requested = attempt, True

    def find(self, replica: Replica) -> ProcessInfo | None:
        """The process of a replica's current attempt. Raises NodeLost."""
        infos = {info.key: info for info in self._deps.fabric.processes(replica.grant.node)}
        return infos.get(self._key(replica))

    def start(self, replica: Replica) -> bool:
        """Start a replica; returns False if its model artifact is gone."""
        spec = self._process_spec(replica)
        if spec is None:
            return False
        _ignore_lost(lambda: self._deps.fabric.start(replica.grant.node, spec))
        return True

    def ready_url(self, replica: Replica, info: ProcessInfo) -> str:
        """The URL of a replica that answers, on its own node; empty while it does not."""
        listening = info.last(ListeningReport)
        url = "" if listening is None else listening.url
        nodes = self._deps.store.pool.nodes([replica.grant.node])
        if url and not any(is_at(url, node.address) for node in nodes):
            log.warning("replica.elsewhere", process=info.key, url=url)
            return ""
        engine = self._deps.engines[self._service.spec.engine]
        return url if url and self._deps.answers(url + engine.ready_path) else ""

    def purge(self, replica: Replica) -> None:
        """End what is left of the service on a replica's node."""
        _ignore_lost(lambda: self._deps.fabric.purge(replica.grant.node, self._service.id))

    def store_log(self, replica: Replica) -> None:
        """Append the newest output of a replica to its log file."""
        logs, job = self._deps.logs, self._service.id
        name = f"replica-{replica.number}.{self._epoch}.{replica.attempt}"
        size = logs.size(job, name)

        def pull() -> None:
            chunk = self._deps.fabric.read_log(
                replica.grant.node, self._key(replica), size, LOG_PIECE_BYTES
            )
            if chunk.data:
                logs.append(job, name, chunk)

        _ignore_lost(pull)

    def _process_spec(self, replica: Replica) -> ProcessSpec | None:
        spec = self._service.spec
        engine = self._deps.engines[spec.engine]
        artifact = self._deps.store.artifacts.find(spec.model)
        if artifact is None:
            return None
        weights = [f.path for f in artifact.spec.files if f.path.endswith(".gguf")]
        env = engine.env(
            model_file=(weights or [""])[0].rsplit("/", 1)[-1],
            alias=spec.name,
            tokens=spec.context_tokens,
            parallel=spec.parallel,
        )
        return ProcessSpec(
            key=self._key(replica),
            workload=self._service.id,
            rank=replica.number,
            epoch=self._epoch,
            project=spec.project,
            command=engine.command(),
            warm=True,
            grant=replica.grant,
            env={**env, environment.ENGINE_KEY: self._deps.engine_key},
            inputs=(Staged(artifact=artifact.id, folder="model", files=artifact.spec.files),),
        )

    def _key(self, replica: Replica) -> str:
        return f"{self._service.id}.{replica.number}.{replica.attempt:04d}"


def _ignore_lost(act: Callable[[], None]) -> None:
    try:
        act()
    except NodeLost:
        return  # the next check notices


def answers(url: str) -> bool:
    """Whether an engine answers at a URL within two seconds."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own engine's URL
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
