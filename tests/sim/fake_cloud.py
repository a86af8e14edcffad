"""The real scheduler, controllers and store over a clock that jumps and nodes without processes."""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import select

from karez.core.artifacts import Artifact, ArtifactKind, ArtifactSpec, FileEntry, artifact_id
from karez.core.devices import DeviceKind
from karez.core.engines import Capabilities, Task
from karez.core.gangs import GangSpec
from karez.core.jobs import Job, JobSpec
from karez.core.metrics import Metrics
from karez.core.nodes import NodeId
from karez.core.resource_requests import ResourceRequest
from karez.core.services import Service, ServiceSpec
from karez.core.settings import Settings
from karez.core.traces import JobTracer, NoTracer
from karez.core.workloads import ENDED, State, WorkloadId, WorkloadKind
from karez.drivers.blobs import FsspecBlobs
from karez.node_events.hub import NodeEventHub
from karez.server.controllers.control_context import Edges
from karez.server.controllers.manager import ControllerManager
from karez.server.controllers.node_eviction import NodeEviction
from karez.server.controllers.scheduler import Scheduler
from karez.server.metrics import PrometheusMetrics
from karez.serving.readiness import Readiness
from karez.serving.replica_processes import ServingDeps
from karez.serving.service_loads import ServiceLoads
from karez.store.schema import workloads
from karez.store.sql import SqlStore
from karez.training.controller.controller_deps import ControllerDeps
from karez.training.controller.transfers import Transfers
from tests.fakes import MemoryLogs, cpu_node
from tests.sim.fake_nodes import FakeFabric
from tests.sim.fake_ranks import Behaviours, Gang, Rank
from tests.sim.timeline import Timeline

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
SETTINGS = Settings(
    tick_s=4 * HOUR_S,
    lease_s=math.inf,
    hang_s=4 * HOUR_S,
    checkpoint_s=6 * HOUR_S,
    node_silence_s=4.0,
)
"""Looks and limits for steps of an hour."""


class Inline(ThreadPoolExecutor):
    """Returns once what is submitted is done."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future = super().submit(fn, *args, **kwargs)
        wait([future])
        return future


def fail() -> float | None:
    """The step of a controller with a defect."""
    raise RuntimeError("a controller fails")


class FakeEngine:
    name: ClassVar[str] = "fake"
    capabilities: ClassVar[Capabilities] = Capabilities(
        formats=("gguf",), kinds=tuple(DeviceKind), tasks=tuple(Task)
    )
    ready_path: ClassVar[str] = "/health"

    def command(self) -> tuple[str, ...]:
        return ("fake:main",)


STATES = select(workloads.c.id, workloads.c.state)


@dataclass
class Context:
    """What the controllers share."""

    store: SqlStore
    clock: Timeline
    settings: Settings
    metrics: Metrics


@dataclass
class FakeCloud:
    folder: Path
    nodes: Sequence[str] = ("a", "b", "c", "d")
    cores: int = 4
    settings: Settings = SETTINGS
    step_s: float = HOUR_S
    timeline: Timeline = field(default_factory=Timeline)
    totals: dict[str, int] = field(default_factory=dict)
    """Job -> steps."""
    answers: dict[int, Readiness] = field(default_factory=dict)
    """Context tokens of a service -> how its engines answer; all others are ready."""

    def __post_init__(self) -> None:
        self.store = SqlStore(f"sqlite:///{self.folder / 'k.db'}")
        self.fabric = FakeFabric(self.timeline, [cpu_node(name, self.cores) for name in self.nodes])
        self.ranks = Behaviours(fabric=self.fabric, gang_of=self._gang_of)
        self.logs = MemoryLogs()
        self.metrics = PrometheusMetrics()
        self.tracer: JobTracer = NoTracer()
        self.count = 0
        self.connect()

    def connect(self) -> None:
        """Control starts, or starts again after it was killed: nothing is left but the store."""
        store, clock, fabric = self.store, self.timeline, self.fabric
        context = Context(store=store, clock=clock, settings=self.settings, metrics=self.metrics)
        self.scheduler, self.loads = Scheduler(store, clock), ServiceLoads()
        eviction = NodeEviction(store=store, clock=clock)
        hub = NodeEventHub(fabric=fabric, clock=clock)
        deps = ControllerDeps(
            store=store,
            fabric=fabric,
            hub=hub,
            transfers=Transfers(executor=Inline(1)),
            blobs=fabric.blobs,
            clock=clock,
            settings=self.settings,
            logs=self.logs,
            find=self.scheduler.find_grants,
            secrets=lambda project, names: {},
            nodes_to_avoid=eviction.nodes_to_avoid,
            tracer=self.tracer,
            metrics=self.metrics,
        )
        serving = ServingDeps(
            store=store,
            fabric=fabric,
            hub=hub,
            clock=clock,
            settings=self.settings,
            logs=self.logs,
            engines={"fake": FakeEngine()},
            engine_key="k",
            ask=self.ask,
            loads=self.loads,
            wake=self._wake,
        )
        uploads = FsspecBlobs(str(self.folder / "blobs"))
        edges = Edges(fabric=fabric, deps=deps, serving=serving, eviction=eviction, uploads=uploads)
        self.store.workloads.drop_leases("sim")
        self.manager = ControllerManager(context, lambda: edges, "sim", self.scheduler)
        self.timeline.on_pause = lambda: hub.pump(within_s=0.0)
        self.look()

    def close(self) -> None:
        self.store.close()

    # users

    def submit(self, *, ranks: int = 2, steps: int = 24, settle: bool = True, **more: Any) -> str:
        self.count += 1
        name = f"job-{self.count}"
        spec = JobSpec(
            name=name,
            kind=WorkloadKind.TRAIN,
            command=("python", "train.py"),
            gang=GangSpec(
                min=more.pop("min", ranks),
                want=ranks,
                max=more.pop("max", None),
                each=(ResourceRequest(),),
            ),
            **more,
        )
        self.totals[name] = steps
        job = Job(id=WorkloadId(name), spec=spec, owner="me", created_at=self.timeline.now())
        self.store.workloads.add_job(job)
        self.manager.wake()
        if settle:
            self.manager.settle()
        return name

    def deploy(self, *, replicas: int = 2, **more: Any) -> str:
        self.count += 1
        name = f"service-{self.count}"
        body = _weights(b"weights")
        artifact = ArtifactSpec(
            name="m", kind=ArtifactKind.MODEL, project="default", format="gguf", files=(body,)
        )
        ident = artifact_id(artifact)
        self.store.artifacts.add(
            Artifact(id=ident, spec=artifact, owner="me", created_at=self.timeline.now())
        )
        spec = ServiceSpec(name=name, model=ident, engine="fake", replicas=replicas, **more)
        self.store.workloads.add_service(
            Service(id=WorkloadId(name), spec=spec, owner="me", created_at=self.timeline.now())
        )
        self.manager.wake()
        self.manager.settle()
        return name

    def stop(self, name: str) -> None:
        self.store.workloads.request_stop(WorkloadId(name), at=self.timeline.now())
        self.manager.wake()

    def job(self, name: str) -> Job:
        found = self.store.workloads.job(name)
        assert found is not None
        return found

    def states(self) -> dict[str, State]:
        """The state of every workload, in one query: days ask for it again and again."""
        with self.store.db.read() as tx:
            return {row.id: State(row.state) for row in tx.execute(STATES)}

    def state(self, name: str) -> State:
        item = self.store.workloads.find(WorkloadId(name))
        assert item is not None
        return item.state

    def gang(self, name: str) -> Gang:
        return self.ranks.gangs[name]

    def service(self, name: str) -> Service:
        found = self.store.workloads.service(name)
        assert found is not None
        return found

    def ask(self, url: str, path: str, spec: ServiceSpec, key: str) -> Readiness:
        """What an engine is found to be."""
        return self.answers.get(spec.context_tokens, Readiness(True))

    def _wake(self) -> None:
        self.manager.wake()

    # time

    def run(self, seconds: float) -> None:
        """Go through this time, from one event to the next."""
        until = self.timeline.now() + seconds
        self.manager.settle()
        while (at := min(self.timeline.next_at(), self.manager.controllers.next_due_at())) <= until:
            self.timeline.jump_to(at)
            self.manager.settle()
        self.timeline.jump_to(until)
        self.manager.settle()

    def run_until_ended(self, *names: str, within_s: float = 12 * DAY_S) -> None:
        until = self.timeline.now() + within_s
        while not all(state in ENDED for name, state in self.states().items() if name in names):
            assert self.timeline.now() < until, {name: self.job(name).status for name in names}
            self.run(HOUR_S)
        self.run(60.0)

    def look(self) -> None:
        """What the loops do from time to time, whatever happens."""
        self.manager.check_pool()
        self.manager.check_workloads()
        self.manager.wake()
        self.manager.settle()

    def look_every(self, seconds: float) -> None:
        """Look now, and again and again."""
        self.look()
        self.timeline.after(seconds, lambda: self.look_every(seconds))

    # faults

    def living(self, name: str) -> list[Rank]:
        return self.gang(name).in_group() if name in self.ranks.gangs else []

    def kill(self, rank: Rank) -> None:
        self.fabric.end(rank.process, -9)

    def power_cut(self, node: str, *, for_s: float) -> None:
        self.fabric.power_off(NodeId(node))

        def back() -> None:
            self.fabric.power_on(NodeId(node))
            self.look()

        self.timeline.after(self.settings.node_silence_s + 1.0, self.look)
        self.timeline.after(for_s, back)

    def restart_agent(self, node: str) -> None:
        self.fabric.restart_agent(NodeId(node))

    def hang(self, rank: Rank) -> None:
        rank.is_hung = True

    def fail_controller(self, name: str) -> bool:
        """The next step of a job's controller raises an error. False: it has none."""
        entry = self.manager.controllers._entries.get(WorkloadId(name))
        if entry is None:
            return False
        vars(entry.controller)["step"] = fail
        self.manager.controllers.wake(WorkloadId(name))
        return True

    def kill_control(self) -> None:
        self.connect()

    # what must always hold

    def check(self) -> None:
        """No device is given twice, and nothing runs where nobody holds anything."""
        allocations = self.store.workloads.allocations()
        held: Counter[tuple[NodeId, str, int]] = Counter()
        for allocation in allocations.values():
            for grant in allocation.grants:
                for index, milli in grant.devices:
                    held[grant.node, grant.kind, index] += milli
        assert all(milli <= 1000 for milli in held.values()), held

    def check_empty(self) -> None:
        """After the last workload nothing is left of any."""
        assert not self.store.workloads.allocations()
        assert not self.store.workloads.queued()
        left = [(n.node.id, key) for n in self.fabric.all.values() for key in n.processes]
        assert not left, left
        assert all(not n.own and not n.replicas for n in self.fabric.all.values())
        assert len(self.manager.controllers) == 0

    def _gang_of(self, job: str) -> Gang | None:
        if job not in self.totals:
            return None
        return Gang(job=job, total=self.totals[job], step_s=self.step_s, fabric=self.fabric)


def _weights(body: bytes) -> FileEntry:
    digest = hashlib.sha256(body).hexdigest()
    return FileEntry(path="m.gguf", sha256=digest, size_bytes=len(body))
