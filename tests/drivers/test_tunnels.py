"""Tunnels into real processes: shells with and without a terminal, ports, files in and out."""

import io
import os
import socket
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from karez.core.devices import DeviceKind
from karez.core.errors import BadRequest, NotFound
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.processes import ProcessSpec
from karez.core.tunnels import MAX_TUNNELS, Terminal, TunnelKind, TunnelPiece, TunnelSpec
from karez.core.workloads import WorkloadId
from karez.drivers.steward.resource_limits import CHECK_S
from karez.drivers.steward.steward import Steward
from karez.drivers.steward.tunnel_streams import TunnelStreams
from tests.fakes import DirectFabric

JOB = WorkloadId("job-1")
A = NodeId("a")
PROGRAM = (
    "import os, pathlib, socket\n"
    "pathlib.Path('made.txt').write_text('made')\n"
    "listener = socket.create_server(('127.0.0.1', 0))\n"
    "pathlib.Path(os.environ['KAREZ_OUT'], 'port').write_text(str(listener.getsockname()[1]))\n"
    "while True:\n"
    "    peer, _ = listener.accept()\n"
    "    while data := peer.recv(65536): peer.sendall(data.upper())\n"
    "    peer.close()\n"
)


def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def fabric(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DirectFabric]:
    made = DirectFabric(tmp_path_factory.mktemp("nodes"), ["a"])
    yield made
    made.close()


@pytest.fixture(scope="module")
def work(fabric: DirectFabric) -> Path:
    """The folder of the job on its node."""
    return fabric.stewards[A].home / "work" / JOB


@pytest.fixture(scope="module")
def node(fabric: DirectFabric, work: Path) -> Steward:
    """A node on which a job listens on a port."""
    grant = Grant(node=A, kind=DeviceKind.CPU, devices=((0, 1000),), memory_bytes=1 << 29)
    spec = ProcessSpec(
        key="job-1.0.1",
        workload=JOB,
        rank=0,
        epoch=1,
        grant=grant,
        command=("python", "-c", PROGRAM),
        env={"MARK": "its own"},
    )
    fabric.start(A, spec)
    until(lambda: port_of(work) > 0)
    return fabric.stewards[A]


def port_of(work: Path) -> int:
    file = work / "job-1.0.1/out/port"
    return int(file.read_text() or 0) if file.exists() else 0


def opened(node: Steward, spec: TunnelSpec, workload: WorkloadId = JOB) -> str:
    ident = uuid.uuid4().hex
    node.open_tunnel(workload, ident, spec)
    node.open_tunnel(workload, ident, spec)  # again: nothing happens
    return ident


def output(node: Steward, ident: str, *, until_seen: bytes = b"") -> tuple[bytes, TunnelPiece]:
    """All output to the end, or until something was seen."""
    data, offset, deadline = b"", 0, time.monotonic() + 20
    while True:
        assert time.monotonic() < deadline, data
        piece = node.read_tunnel(JOB, ident, offset)
        data, offset = data + piece.data, piece.next
        if piece.has_ended:
            node.close_tunnel(JOB, ident)
        if piece.has_ended or (until_seen and until_seen in data):
            return data, piece


def run(node: Steward, *command: str, given: bytes = b"") -> tuple[bytes, int | None]:
    ident = opened(node, TunnelSpec(kind=TunnelKind.SHELL, command=command))
    node.write_tunnel(JOB, ident, 0, given, end=True)
    data, piece = output(node, ident)
    return data, piece.exit_code


def test_a_command_runs_in_the_jobs_place_and_its_exit_code_comes_back(node: Steward) -> None:
    script = 'cat made.txt; echo " $MARK $RANK_ONLY[$KAREZ_STEWARD]"; cat; exit 3'
    assert run(node, "sh", "-c", script, given=b"in") == (b"made its own []\nin", 3)
    cores = run(node, "python", "-c", "import os; print(os.sched_getaffinity(0))")
    assert cores == (b"{0}\n", 0)
    said, code = run(node, "no-such-program")
    assert (said, code) == (
        b"cannot run 'no-such-program' on this node: No such file or directory\n",
        1,
    )


def test_a_shell_has_a_terminal_with_job_control_and_a_size(node: Steward) -> None:
    terminal = Terminal(rows=33, columns=111)
    ident = opened(node, TunnelSpec(kind=TunnelKind.SHELL, terminal=terminal))
    given = b"stty size; echo $TERM; sh -c 'echo ready; exec sleep 100'\n"
    assert node.write_tunnel(JOB, ident, 0, given, end=False) == len(given)
    data, _ = output(node, ident, until_seen=b"ready\r\n")
    assert b"33 111\r\n" in data
    assert b"xterm-256color\r\n" in data
    node.resize_tunnel(JOB, ident, Terminal(rows=40, columns=90))
    node.write_tunnel(JOB, ident, len(given), b"\x03stty size; exit 5\n", end=False)
    data, piece = output(node, ident)
    assert b"40 90\r\n" in data
    assert piece.exit_code == 5


def test_what_is_sent_twice_is_taken_once_and_what_was_not_read_is_there_again(
    node: Steward,
) -> None:
    ident = opened(node, TunnelSpec(kind=TunnelKind.SHELL, command=("cat",)))
    assert node.write_tunnel(JOB, ident, 0, b"abc", end=False) == 3
    assert node.write_tunnel(JOB, ident, 0, b"abcdef", end=True) == 6
    until(lambda: node.read_tunnel(JOB, ident, 0).data == b"abcdef")
    piece = node.read_tunnel(JOB, ident, 2)
    assert (piece.data, piece.next) == (b"cdef", 6)
    _, piece = output(node, ident)
    assert piece.exit_code == 0


def test_input_that_is_sent_twice_while_there_is_no_room_is_taken_once() -> None:
    read, write = os.pipe()
    streams = TunnelStreams(-1, write, lambda: None)
    at = 0
    while (taken := streams.write(at, bytes(1 << 20), end=False)) > at:
        at = taken
    threads = [
        threading.Thread(target=streams.write, args=(at, b"x" * 1000), kwargs={"end": False})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    left = at + 1000
    while left:
        left -= len(os.read(read, 1 << 16))
    for thread in threads:
        thread.join()
    assert streams.write(at + 1000, b"", end=False) == at + 1000
    streams.close()
    streams.join()
    for number in (read, write):
        os.close(number)


def test_much_goes_through_and_a_slow_reader_is_waited_for(node: Steward) -> None:
    ident = opened(node, TunnelSpec(kind=TunnelKind.SHELL, command=("cat",)))
    sent = os.urandom(1 << 20) * 12

    def give() -> None:
        at = 0
        while at < len(sent):
            at = node.write_tunnel(JOB, ident, at, sent[at : at + (1 << 20)], end=False)
        node.write_tunnel(JOB, ident, at, b"", end=True)

    thread = threading.Thread(target=give)
    thread.start()
    data, piece = output(node, ident)
    thread.join()
    assert data == sent
    assert piece.exit_code == 0


def test_a_port_of_the_job_is_reached_and_no_other(node: Steward, work: Path) -> None:
    port = port_of(work)
    ident = opened(node, TunnelSpec(kind=TunnelKind.PORT, port=port))
    node.write_tunnel(JOB, ident, 0, b"hello", end=True)
    data, _ = output(node, ident)
    assert data == b"HELLO"
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        with pytest.raises(BadRequest, match=rf"listens on port {number}.*{port}"):
            opened(node, TunnelSpec(kind=TunnelKind.PORT, port=number))


def archive(*names: str, data: bytes = b"x") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def copy_in(node: Steward, path: str, packed: bytes) -> str:
    ident = opened(node, TunnelSpec(kind=TunnelKind.COPY_IN, path=path))
    node.write_tunnel(JOB, ident, 0, packed, end=True)
    _, piece = output(node, ident)
    return piece.problem


def test_files_go_in_and_out(node: Steward, work: Path) -> None:
    assert copy_in(node, "new/place", archive("a/b.txt", "c.txt")) == ""
    code = work / "job-1.0.1/code"
    assert (code / "new/place/a/b.txt").read_bytes() == b"x"
    assert copy_in(node, "new", archive("place/c.txt", data=b"other")) == ""
    assert (code / "new/place/c.txt").read_bytes() == b"other"
    ident = opened(node, TunnelSpec(kind=TunnelKind.COPY_OUT, path="new"))
    data, piece = output(node, ident)
    assert piece.problem == ""
    with tarfile.open(fileobj=io.BytesIO(data)) as got:
        assert {"new/place/a/b.txt", "new/place/c.txt"} <= set(got.getnames())


def test_copies_stay_in_the_jobs_folders_and_broken_ones_leave_nothing(
    node: Steward, work: Path
) -> None:
    for path in ("/etc/passwd", "../../../..", "../../../job-2"):
        for kind in (TunnelKind.COPY_IN, TunnelKind.COPY_OUT):
            with pytest.raises(BadRequest, match="none of the job's own folders"):
                opened(node, TunnelSpec(kind=kind, path=path))
    with pytest.raises(NotFound):
        opened(node, TunnelSpec(kind=TunnelKind.COPY_OUT, path="not-there"))
    assert "OutsideDestinationError" in copy_in(node, "x", archive("ok", "../../../evil"))
    assert "ReadError" in copy_in(node, "x", archive("ok", data=b"y" * 5000)[:2000])
    cut = opened(node, TunnelSpec(kind=TunnelKind.COPY_IN, path="x"))
    node.write_tunnel(JOB, cut, 0, archive("whole", "lost")[:1024], end=False)
    node.close_tunnel(JOB, cut)  # where one file is over: it looks like the end
    (work / "job-1.0.1/code/taken").write_text("a file")
    big = archive("big", data=bytes(8 << 20))
    for path, packed in (("taken/x", big), ("", archive("taken/x"))):
        assert "Error" in copy_in(node, path, packed)
    code = work / "job-1.0.1/code"
    until(lambda: list((code / "x").iterdir()) == [])
    assert (code / "taken").read_text() == "a file"
    assert not (code.parent.parent / "evil").exists()


def running(*command: str) -> list[psutil.Process]:
    everyone = psutil.process_iter(["cmdline"])
    return [one for one in everyone if one.info["cmdline"] == list(command)]


@pytest.mark.story
def test_a_shell_that_takes_the_jobs_memory_ends_and_the_job_does_not(node: Steward) -> None:
    hog = "import time; held = bytearray(600 << 20); print('held', flush=True); time.sleep(100)"
    ident = opened(node, TunnelSpec(kind=TunnelKind.SHELL, command=("python", "-c", hog)))
    _, piece = output(node, ident)
    assert piece.exit_code == -9
    seen = time.monotonic()
    until(lambda: time.monotonic() > seen + 2 * CHECK_S)
    (process,) = node.processes()
    assert process.alive


def test_what_nobody_reads_is_closed(node: Steward, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TunnelSpec(kind=TunnelKind.SHELL, command=("sleep", "1001"))
    ident = opened(node, spec)

    until(lambda: bool(running("sleep", "1001")))
    monkeypatch.setattr("karez.drivers.steward.tunnels.IDLE_S", 0.2)
    until(lambda: not running("sleep", "1001"))
    with pytest.raises(NotFound):
        node.read_tunnel(JOB, ident, 0)


def test_tunnels_are_of_their_job_limited_and_closed_with_it(
    node: Steward, fabric: DirectFabric
) -> None:
    spec = TunnelSpec(kind=TunnelKind.SHELL, command=("sh", "-c", "sleep 1000 & echo up; wait"))
    ident = opened(node, spec)
    output(node, ident, until_seen=b"up")
    other = WorkloadId("job-2")
    for act in (
        lambda: node.read_tunnel(other, ident, 0),
        lambda: opened(node, spec, other),
        lambda: opened(node, TunnelSpec(kind=TunnelKind.SHELL, rank=1)),
    ):
        with pytest.raises(NotFound):
            act()
    until(lambda: bool(running("sleep", "1000")))  # the shell goes on before its child has begun
    sleeping = running("sleep", "1000")
    fast = TunnelSpec(kind=TunnelKind.COPY_IN, path="y")
    for _ in range(MAX_TUNNELS - 1):
        opened(node, fast)
    with pytest.raises(BadRequest, match=f"{MAX_TUNNELS} tunnels are open"):
        opened(node, fast)
    fabric.purge(A, JOB)
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in sleeping)
    with pytest.raises(NotFound):
        node.read_tunnel(JOB, ident, 0)
