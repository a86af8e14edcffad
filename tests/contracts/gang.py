"""Runs a real gang under a real controller on real stewards, without Ray: the tests break it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from karez.core.devices import DeviceKind
from karez.core.gangs import GangRole, GangSpec
from karez.core.grants import Grant
from karez.core.jobs import LADDER, Job, JobSpec
from karez.core.messages.reports import CommitReport
from karez.core.node_affinity import NodeAffinity
from karez.core.nodes import NodeId
from karez.core.processes import ProcessInfo
from karez.core.resource_requests import ResourceRequest
from karez.core.settings import Settings
from karez.core.workloads import State, WorkloadId, WorkloadKind
from karez.drivers.blobs import FsspecBlobs
from karez.node_events.hub import NodeEventHub
from karez.server.plugins import recipes
from karez.store.sql import SqlStore
from karez.training.controller.controller_deps import ControllerDeps
from karez.training.controller.gang_start import Lease
from karez.training.controller.job_controller import JobController
from karez.training.controller.process_specs import parse_key
from karez.training.controller.transfers import Transfers
from tests.fakes import DirectFabric, MemoryLogs

HELD = DeviceKind.DPU
"""Kind that gangs here hold: nothing computes on it, so ranks use the CPU, all of its cores."""
LOOK_S = 0.1
SCRIPT = Path(__file__).parent / "gang_job.py"


class RealClock:
    def now(self) -> float:
        return time.time()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)


def until(condition: Callable[[], bool], *, within_s: float = 60.0, what: str = "") -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what or condition}"
        time.sleep(0.005)


def run_alone(controller: JobController, woken: threading.Event) -> None:
    """Run a controller on this thread, and have it look for requests ten times a second."""
    looked_at = 0.0
    while (due_at := controller.step()) is not None:
        woken.wait(min(LOOK_S, max(0.0, due_at - time.time())))  # at most: it may be stood down
        woken.clear()
        if time.time() - looked_at > LOOK_S:
            looked_at = time.time()
            controller.note_request()
    controller.close()


@dataclass
class Bench:
    """A store, nodes and the tools of a controller."""

    folder: Path
    nodes: Sequence[str]
    spare: Sequence[Grant] = ()
    settings: Settings = field(default_factory=lambda: Settings(checkpoint_s=1e9, tick_s=0.1))
    held: DeviceKind = HELD
    """NPU: each node emulates some, and ranks use these."""

    def __post_init__(self) -> None:
        npus = 8 if self.held == DeviceKind.NPU else 0
        self.fabric = DirectFabric(
            self.folder, self.nodes, preload="tests.contracts.warm", npus=npus
        )
        self.store = SqlStore(f"sqlite:///{self.folder / 'k.db'}")
        self.logs = MemoryLogs()
        self.deps = ControllerDeps(
            recipes=recipes(),
            store=self.store,
            fabric=self.fabric,
            hub=NodeEventHub(fabric=self.fabric, clock=RealClock()),
            transfers=Transfers(executor=ThreadPoolExecutor(8)),
            blobs=FsspecBlobs(str(self.folder / "blobs")),
            clock=RealClock(),
            settings=self.settings,
            logs=self.logs,
            find=self.find,
            secrets=lambda project, names: {},
        )
        self.count = 0
        self.is_closed = False
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        while not self.is_closed:
            self.deps.hub.pump(within_s=0.05)

    def find(
        self, need: ResourceRequest, count: int, avoid: frozenset[NodeId], among: NodeAffinity
    ) -> Sequence[Grant]:
        return [grant for grant in self.spare if grant.node not in avoid][:count]

    def close(self) -> None:
        self.is_closed = True
        self.fabric.close()
        self.store.close()


def assert_nothing_left(bench: Bench) -> None:
    """No process and no shared memory of a closed bench is there any more."""
    assert not [one for one in bench.fabric.stewards.values() if one.memory.exists()]
    left = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            left += [process.cmdline()] * (process.status() != psutil.STATUS_ZOMBIE)
    assert not [line for line in left if "karez" in " ".join(line)]


@dataclass
class Gang:
    """One job on a bench."""

    bench: Bench
    ranks: int = 2
    steps: int = 30
    work: int = 10
    low: int = 0
    roles: tuple[GangRole, ...] = ()
    extra: Sequence[Grant] = ()
    """What spares and roles hold."""
    script: Path = SCRIPT
    command: tuple[str, ...] = ()
    """What runs instead of the script."""
    more: Mapping[str, float | str] = field(default_factory=dict)
    """Further settings."""
    ladder: tuple[str, ...] = LADDER
    is_placed: bool = True
    """Whether it has its devices; else the test gives them, by `place`."""

    def __post_init__(self) -> None:
        self.bench.count += 1
        self.id = WorkloadId(f"job-{self.bench.count}")
        nodes = [
            NodeId(self.bench.nodes[n * len(self.bench.nodes) // self.ranks])
            for n in range(self.ranks)
        ]
        spec = JobSpec(
            name="gang",
            kind=WorkloadKind.TRAIN,
            command=self.command or ("python", str(self.script)),
            settings={"steps": self.steps, "work": self.work, **self.more},
            gang=GangSpec(min=self.low or self.ranks, want=self.ranks, roles=self.roles),
            ladder=self.ladder,
            ladder_fixed=self.ladder != LADDER,
        )
        self.bench.store.workloads.add_job(Job(id=self.id, spec=spec, owner="t", created_at=1.0))
        self.grants = [
            Grant(node=node, kind=self.bench.held, devices=((n, 1000),))
            for n, node in enumerate(nodes)
        ] + list(self.extra)
        if self.is_placed:
            self.place()
        self.controller: JobController | None = None
        self.thread: threading.Thread | None = None

    def place(self) -> None:
        """Give it its devices."""
        assert self.bench.store.workloads.place(self.id, self.grants, now=time.time())

    def start(self, *, begin: bool = True, beside: bool = False) -> Self:
        """A new controller, on a new lease; the only one, unless it starts beside others."""
        store = self.bench.store
        if not beside:
            store.workloads.drop_leases("t")
        live = [State.PLACED, State.STARTING, State.RUNNING, State.RECOVERING, State.STOPPING]
        tokens = dict(store.workloads.claim(live, owner="t", now=time.time(), lease_s=1e9))
        job = store.workloads.job(self.id)
        assert job is not None
        allocation = store.workloads.allocations()[self.id]
        lease = Lease(job=job, allocation=allocation, token=tokens[self.id])
        self.woken = threading.Event()
        self.controller = JobController(lease, self.bench.deps, self.woken.set)
        self.thread = threading.Thread(
            target=run_alone, args=(self.controller, self.woken), daemon=True
        )
        if begin:
            self.thread.start()
        return self

    def abandon(self) -> None:
        """The controller is gone; the processes are not told."""
        assert self.controller is not None
        assert self.thread is not None
        self.controller.stand_down()
        self.thread.join(5)
        self.bench.store.workloads.drop_leases("t")

    def job(self) -> Job:
        found = self.bench.store.workloads.job(self.id)
        assert found is not None
        return found

    def processes(self) -> dict[int, ProcessInfo]:
        found: dict[int, tuple[int, ProcessInfo]] = {}
        for steward in list(self.bench.fabric.stewards.values()):
            for info in steward.processes():
                named = parse_key(info.key)
                if (
                    info.workload == self.id
                    and named
                    and named[1] >= found.get(named[0], (0, info))[0]
                ):
                    found[named[0]] = (named[1], info)
        return {seat: info for seat, (_, info) in found.items()}

    def alive(self) -> list[int]:
        return [seat for seat, info in self.processes().items() if info.alive]

    def progress(self) -> list[int]:
        living = [info for info in self.processes().values() if info.alive]
        return [
            0 if (commit := info.last(CommitReport)) is None else commit.step for info in living
        ]

    def step(self) -> int:
        return min(self.progress(), default=0)

    def reach(self, step: int) -> None:
        until(
            lambda: self.step() >= step or self.ended(),
            what=f"step {step}: {self.bench.logs.text()[-2000:]}",
        )

    def ended(self) -> bool:
        return self.job().state in (State.SUCCEEDED, State.FAILED, State.CANCELLED)

    def kill(self, seat: int) -> bool:
        """Whether there was something to kill."""
        info = self.processes().get(seat)
        if info is None or not info.alive or not info.pid:
            return False
        try:
            os.kill(info.pid, signal.SIGKILL)
        except ProcessLookupError:  # it ended since its node last said how it is
            return False
        return True

    def finish(self, *, within_s: float = 90.0) -> Job:
        until(
            self.ended,
            within_s=within_s,
            what=f"the end of {self.job()}: {self.bench.logs.text()[-3000:]}",
        )
        return self.job()

    def losses(self) -> dict[tuple[int, int], str]:
        return {(r.step, r.rank): r.loss.hex() for r in self.bench.store.history.metrics(self.id)}

    def weights(self) -> str:
        ident = self.job().status.outputs["final"]
        artifact = self.bench.store.artifacts.find(ident)
        assert artifact is not None
        with self.bench.deps.blobs.open(artifact.spec.files[0].sha256) as file:
            return file.read().decode()
