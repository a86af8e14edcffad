"""What the node agent does as root, and jobs would like to be done for them (C1)."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from karez.core.containers import ContainerProgram
from karez.core.errors import EnvironmentFailed
from karez.core.nodes import Isolation
from karez.core.python_environments import PythonEnvironment
from karez.core.tunnels import Terminal, TunnelKind, TunnelSpec
from karez.core.workloads import WorkloadId
from karez.drivers.steward import isolation_check, rank_listener
from karez.drivers.steward.containers import Containers
from karez.drivers.steward.environments import Environments
from karez.drivers.steward.jobs_own_files import open_inside, remove_tree
from karez.drivers.steward.process_table import ProcessTable
from karez.drivers.steward.rank_listener import RankListener
from karez.drivers.steward.resource_limits import storage_of
from karez.drivers.steward.staging import BlobSource, gather
from karez.drivers.steward.steward import Steward
from karez.transport.connection_limit import ConnectionLimit
from karez.transport.snapshot_file import SnapshotFile
from tests.contracts.gang import until
from tests.drivers.test_environments import stored
from tests.drivers.test_steward import A
from tests.drivers.test_tunnels import output
from tests.fakes import DirectFabric
from tests.hostile.test_hostile_jobs import (
    has_ended,
    info,
    process,
    said,
    skip_where_jobs_are_not_kept_apart,
)
from tests.wheels import make_wheel

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="what root does needs root")


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[DirectFabric]:
    made = DirectFabric(tmp_path, ["a"])
    skip_where_jobs_are_not_kept_apart(made)
    yield made
    made.close()


@pytest.fixture
def node(fabric: DirectFabric) -> Steward:
    return fabric.stewards[A]


def deep(folder: Path, levels: int = 1500) -> None:
    """Folders in folders, as a job makes them."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)


@pytest.mark.parametrize("leads", ["link", "folder", "proc", "pipe", "hollow", "up"])
def test_what_leads_out_of_a_folder_is_not_opened(tmp_path: Path, leads: str) -> None:
    folder, secret = tmp_path / "out", tmp_path / "secret"
    folder.mkdir()
    secret.write_text("not the job's")
    file = folder / "f"
    if leads == "link":
        file.symlink_to(secret)
    elif leads == "folder":
        (folder / "d").symlink_to(tmp_path)
        file = folder / "d" / "secret"
    elif leads == "proc":
        file.symlink_to(f"/proc/{os.getpid()}/root{secret}")
    elif leads == "pipe":
        os.mkfifo(file)
    elif leads == "up":
        file.symlink_to("../out/../secret")
    else:
        file.touch()
        os.truncate(file, 1 << 40)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        open_inside(file, folder)
    assert len(os.listdir("/proc/self/fd")) == before
    assert gather(BlobSource(folder=str(tmp_path / "blobs")), folder) == []


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("own")
    (tmp_path / "f").symlink_to("real")
    with open_inside(tmp_path / "f", tmp_path) as file:
        assert file.read() == b"own"


def test_folders_of_any_depth_are_measured_and_removed(tmp_path: Path) -> None:
    (tmp_path / "out" / "o").mkdir(parents=True)
    deep(tmp_path / "out" / "o")
    assert storage_of(tmp_path / "out") == 0
    blobs = BlobSource(folder=str(tmp_path / "blobs"))
    assert [name for name, _ in gather(blobs, tmp_path / "out")] == ["o"]
    remove_tree(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["pipe", "hollow", "short", "huge"])
def test_a_snapshot_that_is_none_costs_nothing(tmp_path: Path, what: str) -> None:
    path = tmp_path / "0.slots"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "short":
        path.write_bytes(b"x" * 8)
    else:
        SnapshotFile.create(path, 1000).close()
        with path.open("r+b") as file:
            file.seek(8)
            file.write((1 << 40 if what == "huge" else 1 << 20).to_bytes(8, "little"))
            if what == "hollow":
                file.truncate(1 << 30)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(ValueError, match="snapshot file"):
            SnapshotFile(path, is_own=False)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_snapshot_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    """A mapped file that is cut would end the server of all jobs."""
    slots = SnapshotFile.create(tmp_path / "0.slots", 1 << 20)
    slots.write(1, 1, [b"x" * (1 << 20)])
    slots.close()
    other = SnapshotFile(tmp_path / "0.slots", is_own=False)
    os.truncate(tmp_path / "0.slots", 5000)
    with pytest.raises(ValueError, match="too short"):
        other.read(1)
    other.close()


def test_callers_have_connections_of_their_own() -> None:
    limit: ConnectionLimit[str] = ConnectionLimit(2)
    with ExitStack() as stack:
        assert [stack.enter_context(limit.one_of("a")) for _ in range(3)] == [True, True, False]
        assert stack.enter_context(limit.one_of("b"))
    with limit.one_of("a") as may:
        assert may


def test_a_flood_of_connections_ends_no_listener(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_listener, "MOST_CONNECTIONS", 5)
    listener = RankListener(ProcessTable(), str(tmp_path / "s"))
    real, failures = listener._server.accept, [OSError(24, "Too many open files")] * 3

    class Failing:
        def accept(self) -> Any:
            if failures:
                raise failures.pop()
            return real()

    monkeypatch.setattr(listener, "_server", Failing())
    with ExitStack() as stack:
        streams = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(12)]
        for stream in streams:
            stream.settimeout(10)
            stream.connect(str(tmp_path / "s"))
        closed = sum(stream.recv(1) == b"" for stream in streams[6:])
        assert closed == 6
        assert failures == []


@pytest.mark.parametrize(
    ("code", "says"), [(-9, ""), (0, ""), (1, "isolated"), (0, "user 5 cannot reach /x")]
)
def test_a_check_that_does_not_say_so_is_no_isolation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, says: str
) -> None:
    monkeypatch.setattr(isolation_check, "run_program", lambda *_: (code, says))
    assert isolation_check.isolation_problem(tmp_path, tmp_path, 1) != ""
    monkeypatch.setattr(isolation_check, "run_program", lambda *_: (0, "isolated\n"))
    assert isolation_check.isolation_problem(tmp_path, tmp_path, 1) == ""


def test_what_runs_an_image_has_nothing_of_the_job_in_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else PATH or LD_PRELOAD of the job would choose what root runs."""
    module = "karez.drivers.steward.containers"
    monkeypatch.setattr(f"{module}.container_program", lambda: ContainerProgram.PODMAN)
    monkeypatch.setattr(f"{module}.shutil.which", lambda name, path: f"/usr/bin/{name}")
    containers = Containers(tmp_path)
    env = {"PATH": "/job", "LD_PRELOAD": "/job/x.so", "TOKEN": "hush", "DOCKER_HOST": "tcp://x"}
    order = {"user": 5, "sandbox": {"pid": 1}, "env": env, "cwd": "/c", "command": ["x"]}
    spec = process("job-a", "a", command=("sh",), image="alpine")
    wrapped = containers.wrap(order, spec, ())
    assert (wrapped["command"][0], wrapped["sandbox"]) == ("/usr/bin/podman", None)
    assert not {"LD_PRELOAD", "TOKEN"} & set(wrapped["env"])
    assert wrapped["env"]["PATH"] != "/job"
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(file.read_text().splitlines()) == {
        "LD_PRELOAD=/job/x.so",
        "TOKEN=hush",
        "DOCKER_HOST=tcp://x",
    }
    beside = containers.beside(order, "job-a.0.1", ("sh",), terminal=False)
    assert beside["command"][0] == "/usr/bin/podman"
    assert "TOKEN" not in beside["env"]
    with pytest.raises(EnvironmentFailed, match="line break"):
        containers.wrap({**order, "env": {"A": "1\nB=2"}}, spec, ())
    containers.remove("job-a.0.1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["x @ https://e.com/x.zip", "git+https://e.com/x", "./x", "-e ."])
def test_root_builds_no_package(tmp_path: Path, line: str) -> None:
    made = stored(tmp_path, f"{line}\n", make_wheel(tmp_path / "w", "waterwheel", "1", ""))
    node = Environments(tmp_path / "e", BlobSource(folder=str(tmp_path / "blobs")))
    with pytest.raises(EnvironmentFailed, match="no wheel of an index"):
        node.prepare(made, lambda: False, user=5)


@NEEDS_ROOT
@pytest.mark.story
@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
def test_packages_of_an_environment_run_as_their_projects_user(
    fabric: DirectFabric, node: Steward, tmp_path: Path, is_warm: bool
) -> None:
    """A file of a package that Python runs whenever it starts there."""
    told = fabric.shared / "told"
    line = f"import os; open('{told}', 'a').write(str(os.getuid()) + chr(10))\n"
    wheel = make_wheel(tmp_path / "w", "waterwheel", "1.2", "TURNS = 12\n", {"evil.pth": line})
    made: PythonEnvironment = stored(tmp_path, "waterwheel==1.2\n", wheel)
    command = ("karez.runtime.script:main", "main.py") if is_warm else ("python", "main.py")
    (node.home / "main.py").write_text("import waterwheel; print(waterwheel.TURNS)")
    entry = node.config.blobs.store(node.home / "main.py", node.home)
    spec = process("job-a", "a", command=command, warm=is_warm, environment=made, code=(entry,))
    node.start(spec)
    until(lambda: has_ended(node, "job-a.0.1"))
    assert said(node, "job-a.0.1") == "12\n", info(node, "job-a.0.1")
    users = set(told.read_text().split())
    assert len(users) == 1
    assert int(users.pop()) > 1_000_000
    look = process("job-b", "b", command=("sh", "-c", f"ls {node.home}/environments/*"))
    node.start(look)
    until(lambda: has_ended(node, "job-b.0.1"))
    assert "waterwheel" not in said(node, "job-b.0.1")


@NEEDS_ROOT
@pytest.mark.story
def test_a_package_that_the_node_has_too_is_the_environments_own(
    node: Steward, tmp_path: Path
) -> None:
    """The node's own version is imported already in the process that a warm one is forked from."""
    wheel = make_wheel(tmp_path / "w", "structlog", "99.0", "OWN = True\n")
    made = stored(tmp_path, "structlog==99.0\n", wheel)
    (node.home / "main.py").write_text("import structlog; print(structlog.OWN)")
    entry = node.config.blobs.store(node.home / "main.py", node.home)
    command = ("karez.runtime.script:main", "main.py")
    node.start(process("job-a", "a", command=command, warm=True, environment=made, code=(entry,)))
    until(lambda: has_ended(node, "job-a.0.1"))
    assert said(node, "job-a.0.1") == "True\n", info(node, "job-a.0.1")


@NEEDS_ROOT
@pytest.mark.story
def test_a_checkpoint_file_is_one_of_a_process_of_the_job(node: Steward) -> None:
    (node.home / "admin.key").write_text("the cloud's")
    key = node.home / "admin.key"
    link = f"ln -s {node.home} /tmp/stored; ln -s {key} $KAREZ_OUT/../stored/k; sleep 600"
    node.start(process("job-a", "a", command=("sh", "-c", link)))
    work = node.home / "work" / "job-a"
    until(lambda: (work / "job-a.0.1" / "stored" / "k").is_symlink())
    for path in (
        work / "tmp" / "stored" / "admin.key",
        work / "job-a.0.1" / "stored" / "k",
        work / "job-a.0.1" / "stored" / ".." / "stored" / "k",
        node.home / "admin.key",
    ):
        with pytest.raises((PermissionError, FileNotFoundError)):
            node.save(WorkloadId("job-a"), str(path))
    real = work / "job-a.0.1" / "stored" / "real"
    real.write_text("own")
    with pytest.raises(PermissionError):
        node.save(WorkloadId("job-b"), str(real))
    assert node.save(WorkloadId("job-a"), str(real)).size_bytes == 3
    assert (node.home / "admin.key").exists()


@NEEDS_ROOT
@pytest.mark.story
def test_a_purge_during_staging_leaves_nothing(
    node: Steward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("karez.drivers.steward.process_table.PURGE_S", 0.1)
    stage, may_go, done = node._launcher.orders.first, threading.Event(), threading.Event()

    def slow(*words: Any) -> Any:
        may_go.wait(10)
        try:
            return stage(*words)
        finally:
            done.set()

    monkeypatch.setattr(node._launcher.orders, "first", slow)
    node.start(process("job-a", "a", command=("sleep", "600"), env={"TOKEN": "hush"}))
    node.purge(WorkloadId("job-a"))
    may_go.set()
    assert done.wait(20)
    until(lambda: not (node.home / "work" / "job-a").exists())
    until(lambda: not node._launcher.sandboxes._made)
    assert list((node.memory / "orders").iterdir()) == []
    assert not (node.memory / "job-a").exists()


@NEEDS_ROOT
@pytest.mark.story
def test_an_order_whose_process_does_not_start_is_removed(node: Steward) -> None:
    node.start(process("job-a", "a", command=("sleep", "600")))
    until(lambda: info(node, "job-a.0.1").pid > 0)
    first = node._launcher.sandboxes._made[WorkloadId("job-a")].answer["pid"]
    made = dict(node._launcher.sandboxes._made)
    psutil.Process(first).kill()
    until(lambda: has_ended(node, "job-a.0.1"))
    until(lambda: not node._launcher.sandboxes._made)
    node._launcher.sandboxes._made = made  # as if it were not known yet that it has ended
    node.start(process("job-a", "a", command=("true",), key="job-a.0.2", env={"TOKEN": "hush"}))
    until(lambda: has_ended(node, "job-a.0.2"))
    assert info(node, "job-a.0.2").exit_code == -9
    assert list((node.memory / "orders").iterdir()) == []


@NEEDS_ROOT
@pytest.mark.story
def test_a_project_has_one_user_on_all_nodes(tmp_path: Path) -> None:
    fabric = DirectFabric(tmp_path, ["a", "b"])
    try:
        users = [node._launcher.sandboxes.user_of("p") for node in fabric.stewards.values()]
        assert users[0] == users[1]
        assert {n.describe().isolation for n in fabric.stewards.values()} == {Isolation.USERS}
    finally:
        fabric.close()


@NEEDS_ROOT
@pytest.mark.story
def test_a_terminal_belongs_to_the_jobs_user(node: Steward) -> None:
    node.start(process("job-1", "a", command=("sleep", "600")))
    until(lambda: info(node, "job-1.0.1").pid > 0)
    terminal = Terminal(name="dumb", rows=20, columns=80)
    command = ("sh", "-c", "echo to-it > $(tty); id -u")
    spec = TunnelSpec(kind=TunnelKind.SHELL, command=command, terminal=terminal)
    node.open_tunnel(WorkloadId("job-1"), "t", spec)
    data, _ = output(node, "t")
    assert b"to-it" in data
    assert b"denied" not in data
