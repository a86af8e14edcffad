"""One contract for every Fabric: over Ray, over node agents in this process, and the fake one."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from karez.core.nodes import NodeId
from karez.core.ports import Fabric, NodeLost
from karez.core.processes import Event, Poll, ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.ray_environment import ray_environment
from karez.drivers.steward.config import StewardConfig
from karez.drivers.steward.staging import BlobSource
from tests.contracts.cloud import kill_all
from tests.contracts.gang import until
from tests.fakes import DirectFabric, cpu_node
from tests.ports import free_port
from tests.sim.fake_nodes import FakeFabric
from tests.sim.timeline import Timeline

pytestmark = pytest.mark.story
JOB, OTHER = WorkloadId("job-1"), WorkloadId("job-2")


@dataclass
class Subject:
    """A fabric with one node or more, and what lets time pass for it."""

    fabric: Fabric
    pass_time: Callable[[], None] = lambda: None

    @property
    def node(self) -> NodeId:
        return self.fabric.nodes()[0].id

    def events(self, *workloads: WorkloadId, after: int = 0) -> list[Event]:
        """What the node tells of these workloads within a moment."""
        self.pass_time()
        answer = self.fabric.poll({self.node: dict.fromkeys(workloads, after)}, 1.5).get(self.node)
        return list(answer.events) if isinstance(answer, Poll) else []

    def until_told(self, kind: str, key: str, workload: WorkloadId = JOB) -> Event:
        found: list[Event] = []

        def is_told() -> bool:
            found[:] = [e for e in self.events(workload) if (e.type, e.key) == (kind, key)]
            return bool(found)

        until(is_told, within_s=30, what=f"{kind} of {key}")
        return found[0]

    def start(self, key: str = "job-1.0.1", workload: WorkloadId = JOB, epoch: int = 1) -> None:
        command = ("sleep", "1000")
        spec = ProcessSpec(key=key, workload=workload, rank=0, epoch=epoch, command=command)
        self.fabric.start(self.node, spec)


def over_ray(folder: Path) -> Iterator[Subject]:
    """A Ray head of its own, with one node agent."""
    port, short = free_port(), tempfile.mkdtemp(prefix="kz-test-")  # sockets need short paths
    token = folder / "ray.token"
    token.write_text("0123456789abcdef0123456789abcdef")
    env = ray_environment(token)
    options = {
        "node-ip-address": "127.0.0.1",
        "port": str(port),
        "include-dashboard": "false",
        "object-store-memory": "80000000",
        "num-cpus": "2",
        "temp-dir": short,
        "labels": "karez-host=a",
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    head = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *words],
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    process = psutil.Process(head.pid)
    os.environ.update(env)  # Ray reads it when it is imported
    from karez.drivers.ray_fabric import RayFabric
    from karez.drivers.ray_stewards import RayEdge

    try:
        home = folder / "node"
        steward = StewardConfig(
            node="", address="", home=str(home), token="t", blobs=BlobSource(folder=str(folder))
        )
        fabric = RayFabric(RayEdge(address=f"127.0.0.1:{port}", steward=steward))
        until(lambda: bool(fabric.nodes()), within_s=60, what="a node")
        yield Subject(fabric)
        fabric.stop_nodes()
        fabric.close()
    finally:
        kill_all([*process.children(recursive=True), process])
        head.wait()
        shutil.rmtree(short, ignore_errors=True)
        for name in env:
            os.environ.pop(name, None)


def over_stewards(folder: Path) -> Iterator[Subject]:
    fabric = DirectFabric(folder, ["a"])
    yield Subject(fabric)
    fabric.close()


def without_processes(_: Path) -> Iterator[Subject]:
    timeline = Timeline()
    yield Subject(FakeFabric(timeline, [cpu_node("a")]), lambda: timeline.pause(1.0))


KINDS: Mapping[str, Callable[[Path], Iterator[Subject]]] = {
    "ray": over_ray,
    "stewards": over_stewards,
    "fake": without_processes,
}


@pytest.fixture(scope="module", params=list(KINDS))
def subject(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    yield from KINDS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(autouse=True)
def clean(subject: Subject) -> Iterator[None]:
    yield
    for workload in (JOB, OTHER):
        subject.fabric.purge(subject.node, workload)
    assert not subject.fabric.processes(subject.node)


def test_a_process_is_started_once_told_of_and_killed(subject: Subject) -> None:
    subject.start()
    subject.start()  # the same key again: nothing happens
    started = subject.until_told("started", "job-1.0.1")
    (info,) = subject.fabric.processes(subject.node)
    assert (info.key, info.workload, info.epoch, info.alive) == ("job-1.0.1", JOB, 1, True)
    assert info.pid == started.data["pid"]
    subject.fabric.kill(subject.node, "job-1.0.1")
    subject.fabric.kill(subject.node, "job-1.0.1")  # repeatable
    assert subject.until_told("exit", "job-1.0.1").data["code"] == -9
    (info,) = subject.fabric.processes(subject.node)
    assert (info.alive, info.exit_code) == (False, -9)


def test_a_poll_tells_all_that_came_after_and_only_what_is_asked_for(subject: Subject) -> None:
    subject.start()
    subject.start("job-2.0.1", OTHER)
    first = subject.until_told("started", "job-1.0.1")
    second = subject.until_told("started", "job-2.0.1", OTHER)
    assert first.workload == JOB
    assert [e.key for e in subject.events(JOB)] == ["job-1.0.1"]
    both = subject.events(JOB, OTHER)
    assert sorted(e.key for e in both) == ["job-1.0.1", "job-2.0.1"]
    assert [e.seq for e in both] == sorted(e.seq for e in both)
    newest = max(first.seq, second.seq)
    subject.fabric.kill(subject.node, "job-1.0.1")
    until(lambda: [e.type for e in subject.events(JOB, after=newest)] == ["exit"], within_s=30)


def test_a_newer_epoch_replaces_an_older_one_and_an_older_one_is_ignored(subject: Subject) -> None:
    subject.start()
    subject.until_told("started", "job-1.0.1")
    subject.start(epoch=2)
    subject.until_told("started", "job-1.0.1")
    subject.start(epoch=1)
    assert [info.epoch for info in subject.fabric.processes(subject.node)] == [2]


def test_a_message_to_nobody_is_dropped_and_an_unknown_node_is_lost(subject: Subject) -> None:
    subject.fabric.send(subject.node, "job-1.0.1", {"type": "exit"})
    subject.fabric.kill(subject.node, "job-1.0.1")
    assert subject.fabric.replica_server(subject.node)
    with pytest.raises(NodeLost):
        subject.fabric.processes(NodeId("nowhere"))
    answer = subject.fabric.poll({NodeId("nowhere"): {JOB: 0}}, 0.5)
    assert isinstance(answer[NodeId("nowhere")], NodeLost)


def test_a_start_has_one_port_until_it_is_purged(subject: Subject) -> None:
    fabric, node = subject.fabric, subject.node
    port = fabric.reserve_port(node, JOB, "0-0.0")
    subject.start()
    subject.start(epoch=2)  # ranks that were moved: still the same start
    assert fabric.reserve_port(node, JOB, "0-0.0") == port
    assert fabric.reserve_port(node, OTHER, "0-0.0") != port
    assert fabric.reserve_port(node, JOB, "1-5.0") != port
    with pytest.raises(NodeLost):
        fabric.reserve_port(NodeId("nowhere"), JOB, "0-0.0")
