"""Tunnels over the API and the client: who may open them, what is recorded, files both ways."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from karez.client import tunnel_calls
from karez.client.sdk import Client
from karez.core.errors import BadRequest, NotAllowed, NotFound
from karez.core.identity import KeySpec, Project, Role
from karez.core.jobs import Job, JobSpec
from karez.core.nodes import NodeId
from karez.core.processes import ProcessSpec
from karez.core.tunnels import Terminal, Tunnel, TunnelKind, TunnelPiece, TunnelSpec
from karez.core.workloads import RankView, State, Status
from tests.api import Api, running_api
from tests.fakes import DirectFabric, cpu_node
from tests.loopback import served

A = NodeId("a")
LS = TunnelSpec(kind=TunnelKind.SHELL, command=("ls",))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("tunnels")
    fabric = DirectFabric(folder, ["a"])
    with running_api(folder, fabric) as api:
        api.cloud.store.pool.record_nodes([cpu_node("a")], now=1.0)
        yield api
    fabric.close()


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[Client]:
    with served(api.http.app) as url, Client(url, api.admin) as client:
        yield client


@pytest.fixture(scope="module")
def job(api: Api, client: Client) -> Job:
    """A job that runs on node a, as its controller would have it."""
    job, store = client.submit(JobSpec(name="j", command=("sleep", "1000"))), api.cloud.store
    key = f"{job.id}.0.1"
    spec = ProcessSpec(key=key, workload=job.id, rank=0, epoch=1, command=job.spec.command)
    fabric = api.cloud.tunnels.fabric()
    assert fabric is not None
    fabric.start(A, spec)
    assert store.workloads.place(job.id, [], now=1.0) is not None
    status = Status(ranks=(RankView(rank=0, node=A),))
    assert store.workloads.update(job.id, state=State.RUNNING, status=status, at=1.0)
    deadline = time.monotonic() + 20
    while not fabric.processes(A)[0].pid:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return client.job(job.id)


def output(client: Client, tunnel: Tunnel) -> tuple[bytes, int | None]:
    data, piece = b"", TunnelPiece()
    while not piece.has_ended:
        piece = client.tunnel_output(tunnel, piece.next)
        data += piece.data
    client.close_tunnel(tunnel)
    return data, piece.exit_code


def test_a_command_runs_beside_the_job_and_the_audit_log_says_who_ran_what(
    client: Client, job: Job
) -> None:
    spec = TunnelSpec(kind=TunnelKind.SHELL, command=("sh", "-c", "cat; exit 4"))
    tunnel = client.open_tunnel("j", spec)
    assert (tunnel.job, tunnel.rank, tunnel.node) == (job.id, 0, A)
    assert client.tunnel_input(tunnel, 0, b"typed\n") == 6
    client.resize_tunnel(tunnel, Terminal(rows=3, columns=4))  # it has none: nothing happens
    assert client.tunnel_input(tunnel, 6, b"", end=True) == 6
    assert output(client, tunnel) == (b"typed\n", 4)
    closed, opened = client.audit(limit=2)
    assert opened.action == "POST /jobs/j/tunnels"
    assert opened.detail == "shell of rank 0: sh -c cat; exit 4"
    assert closed.action.startswith("DELETE")
    client.close_tunnel(tunnel)


def test_files_are_copied_both_ways_and_nothing_is_left_of_what_failed(
    client: Client, job: Job, tmp_path: Path
) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a.bin").write_bytes(bytes(range(256)) * 20_000)
    (tmp_path / "run.sh").write_text("#!/bin/sh\necho hi\n")
    (tmp_path / "run.sh").chmod(0o755)
    client.copy_to_job(tmp_path / "data", "j", "new")
    client.copy_to_job(tmp_path / "run.sh", "j", "new")
    ran = TunnelSpec(kind=TunnelKind.SHELL, command=("new/run.sh",))
    assert output(client, client.open_tunnel("j", ran)) == (b"hi\n", 0)
    back = tmp_path / "back"
    assert client.copy_from_job("j", "new/data", back) == [back]
    copied = (back / "deep" / "a.bin").read_bytes()
    assert copied == (tmp_path / "data" / "deep" / "a.bin").read_bytes()
    assert client.copy_from_job("j", "new/run.sh", tmp_path / "data") == [tmp_path / "data/run.sh"]
    for path in ("/etc", "../../../.."):
        with pytest.raises(BadRequest, match="none of the job's own folders"):
            client.copy_from_job("j", path, tmp_path)
        with pytest.raises(BadRequest, match="none of the job's own folders"):
            client.copy_to_job(tmp_path / "run.sh", "j", path)
    with pytest.raises(NotFound, match="not-there"):
        client.copy_from_job("j", "not-there", tmp_path)
    with pytest.raises(BadRequest, match=r"is a file"):
        client.copy_to_job(tmp_path / "run.sh", "j", "new/run.sh")
    with pytest.raises(BadRequest, match=r"is not there"):
        client.copy_to_job(tmp_path / "nothing", "j", "new")
    with pytest.raises(BadRequest, match=r"is no folder"):
        client.copy_from_job("j", "new/run.sh", tmp_path / "no" / "such")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "data", "run.sh"]


def test_tunnels_need_a_member_of_the_project_and_a_running_rank(client: Client, job: Job) -> None:
    tunnel = client.open_tunnel("j", LS)
    url = client.address.url
    client.add_project(Project(name="theirs"))
    for project, role, refused in (
        ("default", Role.VIEWER, NotAllowed),
        ("theirs", Role.ADMIN, NotFound),
    ):
        key = client.create_key(KeySpec(name="k", project=project, role=role)).key
        with Client(url, key) as other:
            for call in (
                lambda: other.open_tunnel(job.id, LS),
                lambda: other.tunnel_output(tunnel, 0),
                lambda: other.tunnel_input(tunnel, 0, b"x"),
                lambda: other.close_tunnel(tunnel),
            ):
                with pytest.raises(refused):
                    call()
    output(client, tunnel)
    with pytest.raises(BadRequest, match=r"no rank 3.*Its ranks are: 0"):
        client.open_tunnel("j", TunnelSpec(kind=TunnelKind.SHELL, rank=3))
    waiting = client.submit(JobSpec(name="w", command=("true",)))
    with pytest.raises(BadRequest, match=rf"{waiting.id} is queued.*karez why"):
        client.open_tunnel("w", LS)
    with pytest.raises(BadRequest, match="array"):
        client.open_tunnel(client.submit(JobSpec(name="s", command=("true",), array="0-1")).id, LS)
    with pytest.raises(NotFound):
        client.tunnel_output(tunnel, 0)
    with pytest.raises(BadRequest, match="Send smaller pieces"):
        client.call(tunnel_calls.tunnel_input(client.open_tunnel("j", LS), 0, b"x" * (2 << 20)))
