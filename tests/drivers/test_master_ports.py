"""Ports of jobs' own process groups are free, and stay theirs."""

import socket
from collections.abc import Iterator

import pytest
import torch.distributed as dist

from karez.core.workloads import WorkloadId
from karez.drivers.steward import master_ports
from karez.drivers.steward.master_ports import MasterPorts

JOB, OTHER = WorkloadId("job-1"), WorkloadId("job-2")


@pytest.fixture
def ports() -> Iterator[MasterPorts]:
    made = MasterPorts()
    yield made
    made.close()


def is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("", port))
        except OSError:
            return False
        return True


def test_a_start_keeps_its_port_until_the_next_start(ports: MasterPorts) -> None:
    first = ports.reserve(JOB, "0-0.0")
    assert ports.reserve(JOB, "0-0.0") == first
    assert not is_free(first)
    second = ports.reserve(JOB, "1-9.0")
    assert not is_free(second)
    ports.release(JOB)
    assert is_free(second)
    ports.release(JOB)


def test_rank_0_listens_at_the_port_and_nobody_else_is_given_it(
    ports: MasterPorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = ports.reserve(JOB, "0-0.0")
    store = dist.TCPStore("127.0.0.1", port, 1, is_master=True)
    store.set("key", "value")
    assert dist.TCPStore("127.0.0.1", port, 1, is_master=False).get("key") == b"value"
    monkeypatch.setattr(master_ports, "PORTS", range(port, port + 1))
    of_another_cloud = MasterPorts()
    with pytest.raises(OSError, match=f"no port of {port} to {port} is free"):
        of_another_cloud.reserve(JOB, "0-0.0")


def test_a_port_that_a_program_listens_at_is_not_given(
    ports: MasterPorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        monkeypatch.setattr(master_ports, "PORTS", range(port, port + 1))
        with pytest.raises(OSError, match="is free"):
            ports.reserve(OTHER, "0-0.0")
