"""The helper processes of a node end, whatever ends them, and the node goes on (C3)."""

import os
import random
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from karez.core.nodes import NodeId, NodeState
from karez.core.processes import ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.steward import fork_servers
from karez.drivers.steward.steward import Steward
from karez.store.sql import SqlStore
from tests.contracts.gang import until
from tests.fakes import DirectFabric

A = NodeId("a")
pytestmark = pytest.mark.story


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[DirectFabric]:
    made = DirectFabric(tmp_path, ["a"])
    yield made
    made.close()


@pytest.fixture
def node(fabric: DirectFabric) -> Steward:
    return fabric.stewards[A]


def started(node: Steward, number: int, env: Mapping[str, str] | None = None) -> str:
    """A process that waits, of a job of its own; returns its key."""
    key = f"job-{number}.0.1"
    spec = ProcessSpec(
        key=key,
        workload=WorkloadId(f"job-{number}"),
        rank=0,
        epoch=1,
        command=("sleep", "600"),
        env=env or {},
    )
    node.start(spec)
    return key


def info(node: Steward, key: str) -> tuple[bool, int, int | None, str]:
    (found,) = (one for one in node.processes() if one.key == key)
    return found.alive, found.pid, found.exit_code, found.error


def servers(node: Steward) -> list[int]:
    """Process ids of the node's fork servers."""
    return [client._process.pid for client in node._launcher._servers._all()]


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # another kill came first
        os.kill(pid, signal.SIGKILL)


def test_an_order_that_is_too_long_harms_nobody_else(node: Steward) -> None:
    other = started(node, 1)
    until(lambda: info(node, other)[1] > 0)
    key = started(node, 2, env={"A": "x" * (17 << 20)})
    until(lambda: not info(node, key)[0])
    assert "too long" in info(node, key)[3]
    for broken in ({"key": "x", "op": "start"}, {"key": "x"}, {"op": "start", "key": 5}):
        for own in node._launcher._servers._own.values():
            own.client.ask(broken)
    later = started(node, 3)
    until(lambda: info(node, later)[1] > 0)
    assert info(node, other)[0]


def runs(node: Steward, key: str) -> bool:
    return info(node, key)[1] > 0


def has_ended(node: Steward, key: str) -> bool:
    return not info(node, key)[0]


def test_fork_servers_are_started_again(node: Steward) -> None:
    for number in range(3):
        key = started(node, number)
        until(partial(runs, node, key))
        for server in servers(node):
            kill(server)
        until(partial(has_ended, node, key))
        assert info(node, key)[2:] == (-9, "a fork server of this node has ended")
    key = started(node, 100)
    until(lambda: info(node, key)[1] > 0)
    until(lambda: node.describe().problems == ())


def test_processes_that_start_while_servers_die_start_or_end(
    node: Steward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills at random moments: no process is forgotten between two fork servers."""
    monkeypatch.setattr(fork_servers, "FIRST_PAUSE_S", 0.01)
    chance = random.Random(1)
    keys = []
    for number in range(12):
        keys.append(started(node, number))
        if chance.random() < 0.7:
            kill(chance.choice(servers(node)))
    until(lambda: all(info(node, key)[1] > 0 or not info(node, key)[0] for key in keys))
    for key in keys:
        alive, pid, code, _ = info(node, key)
        assert alive == (pid > 0 and psutil.pid_exists(pid)) or code == -9
    until(lambda: node.describe().problems == ())
    key = started(node, 100)
    until(lambda: info(node, key)[1] > 0)


def test_a_node_whose_fork_server_does_not_come_up_says_so(
    node: Steward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_servers, "FIRST_PAUSE_S", 0.05)
    with monkeypatch.context() as broken:
        broken.setattr("karez.drivers.steward.child_processes.sys.executable", "/bin/false")
        for server in servers(node):
            kill(server)
        until(lambda: len(node.describe().problems) == 2)
        store = SqlStore(f"sqlite:///{tmp_path / 'k.db'}")
        store.pool.record_nodes([node.describe()], now=1.0)
        assert [one.state for one in store.pool.nodes()] == [NodeState.DEGRADED]
    until(lambda: node.describe().problems == ())
    store.pool.record_nodes([node.describe()], now=2.0)
    assert [one.state for one in store.pool.nodes()] == [NodeState.READY]
    store.close()
    key = started(node, 1)
    until(lambda: info(node, key)[1] > 0)
