"""A node's agent with real processes: starting, hearing, killing, clearing up."""

import os
import time
from pathlib import Path

import psutil
import pytest

from karez.core.artifacts import FileEntry
from karez.core.devices import EMULATED, DeviceKind
from karez.core.errors import BrokenArtifact
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.processes import Event, Poll, ProcessSpec, Staged
from karez.core.workloads import WorkloadId
from karez.drivers.blobs import FsspecBlobs
from karez.drivers.probes import cpu_devices, parse_npu_smi
from karez.drivers.steward.staging import BlobSource
from tests.fakes import DirectFabric

JOB = WorkloadId("job-1")
A = NodeId("a")


def spec(*command: str, key: str = "job-1.0.1", **more: object) -> ProcessSpec:
    fields: dict[str, object] = {"rank": 0, "epoch": 1, **more}
    return ProcessSpec(key=key, workload=JOB, command=command, **fields)  # type: ignore[arg-type]


def exit_of(fabric: DirectFabric, within_s: float = 20.0) -> Event:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        answer = fabric.poll({A: {JOB: 0}}, 0.5).get(A)
        for event in answer.events if isinstance(answer, Poll) else ():
            if event.type == "exit":
                return event
    raise AssertionError("it did not end")


def test_a_process_runs_with_its_devices_inputs_and_outputs(
    fabric: DirectFabric, tmp_path: Path
) -> None:
    blobs = FsspecBlobs(str(tmp_path / "blobs"))
    (tmp_path / "x").write_text("data")
    with (tmp_path / "x").open("rb") as file:
        entry = blobs.put(file)
    file_entry = FileEntry(path="d/x.txt", sha256=entry.sha256, size_bytes=4)
    grant = Grant(node=A, kind=DeviceKind.NPU, devices=((3, 1000), (5, 1000)))
    script = (
        'cat "$KAREZ_INPUTS/in/d/x.txt"; echo "npu=$ASCEND_RT_VISIBLE_DEVICES '
        'gpu=$CUDA_VISIBLE_DEVICES"; mkdir $KAREZ_OUT/o; echo r > $KAREZ_OUT/o/f; exit 3'
    )
    staged = Staged(artifact="art-1", folder="in", files=(file_entry,))
    fabric.start(A, spec("sh", "-c", script, grant=grant, inputs=(staged,)))
    fabric.start(A, spec("sh", "-c", script))  # the same key again: nothing happens
    assert exit_of(fabric).data["code"] == 3
    log = fabric.read_log(A, "job-1.0.1", 0, 1000).data.decode()
    assert log == "datanpu=3,5 gpu=\n"
    ((name, output),) = fabric.collect(A, "job-1.0.1")
    assert (name, output.path) == ("o", "f")
    fabric.purge(A, JOB)
    assert not fabric.processes(A)
    assert not (tmp_path / "a" / "work" / JOB).exists()


def test_a_process_that_was_granted_an_emulated_npu_is_told_so(tmp_path: Path) -> None:
    fabric = DirectFabric(tmp_path, ["a"], npus=4)
    try:
        grant = Grant(node=A, kind=DeviceKind.NPU, devices=((2, 500),), is_emulated=True)
        script = "echo $KAREZ_DEVICE $KAREZ_DEVICE_MILLI $ASCEND_RT_VISIBLE_DEVICES $KAREZ_EMUNPU"
        fabric.start(A, spec("sh", "-c", script, grant=grant))
        assert exit_of(fabric).data["code"] == 0
        assert fabric.read_log(A, "job-1.0.1", 0, 1000).data.decode() == "npu 500 2 1\n"
        (node,) = fabric.nodes()
        npus = [device for device in node.devices if device.kind == DeviceKind.NPU]
        assert [device.model for device in npus] == [EMULATED] * 4
        assert sum(device.memory_bytes for device in npus) <= node.memory_bytes
    finally:
        fabric.close()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo; echo some.module.BadThing: it is bad >&2; exit 3", "BadThing: it is bad"),
        ("echo what a day, it ended at 12: sharp; exit 3", "what a day, it ended at 12: sharp"),
    ],
)
def test_a_process_that_fails_tells_what_it_wrote_last(
    fabric: DirectFabric, script: str, why: str
) -> None:
    fabric.start(A, spec("sh", "-c", script))
    assert exit_of(fabric).data == {"code": 3, "error": f"ended with code 3: {why}"}


def test_a_kill_takes_the_whole_family(fabric: DirectFabric) -> None:
    fabric.start(A, spec("sh", "-c", "sleep 1000 & echo started; wait"))
    while not fabric.read_log(A, "job-1.0.1", 0, 100).data:
        fabric.poll({A: {JOB: 0}}, 0.05)
    (child,) = psutil.Process(fabric.processes(A)[0].pid).children()
    fabric.kill(A, "job-1.0.1")
    assert exit_of(fabric).data["code"] == -9
    deadline = time.monotonic() + 5
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline


def test_what_cannot_start_says_why(fabric: DirectFabric) -> None:
    fabric.start(A, spec("no-such-program"))
    assert exit_of(fabric).data["code"] == 1
    assert "no-such-program" in fabric.read_log(A, "job-1.0.1", 0, 4000).data.decode()


def test_an_input_that_is_gone_is_an_error_with_its_name(fabric: DirectFabric) -> None:
    lost = FileEntry(path="x", sha256="0" * 64, size_bytes=1)
    fabric.start(A, spec("true", inputs=(Staged(artifact="a", folder="f", files=(lost,)),)))
    event = exit_of(fabric)
    assert event.data["code"] == 127
    assert "no blob" in event.data["error"]


def test_secrets_are_in_the_environment_and_nowhere_else(fabric: DirectFabric) -> None:
    fabric.start(A, spec("sh", "-c", 'test -n "$TOKEN" && sleep 1000', env={"TOKEN": "hush-hush"}))
    while not any(info.pid for info in fabric.processes(A)):
        fabric.poll({A: {JOB: 0}}, 0.05)
    for process in psutil.process_iter(["cmdline"]):
        assert "hush-hush" not in " ".join(process.info["cmdline"] or ())
    steward = fabric.stewards[A]
    deadline = time.monotonic() + 10
    while any((steward.memory / "orders").iterdir()):  # an order lies there until it is read
        assert time.monotonic() < deadline
    for root in (steward.home, steward.memory):
        for path in root.rglob("*"):
            if path.is_file():
                assert b"hush-hush" not in path.read_bytes()
                is_public = path.parent == steward.home or path.parent.name == "etc"
                assert not path.stat().st_mode & 0o077 or is_public, path
    fabric.kill(A, "job-1.0.1")


def test_a_newer_epoch_replaces_what_an_older_one_left(fabric: DirectFabric) -> None:
    fabric.start(A, spec("sleep", "1000"))
    while not any(info.pid for info in fabric.processes(A)):
        fabric.poll({A: {JOB: 0}}, 0.05)
    old = fabric.processes(A)[0].pid
    fabric.start(A, spec("sleep", "1000", epoch=2))
    deadline = time.monotonic() + 10
    while [i.epoch for i in fabric.processes(A) if i.pid] != [2]:
        assert time.monotonic() < deadline
    assert not psutil.pid_exists(old) or psutil.Process(old).status() == psutil.STATUS_ZOMBIE


def test_a_steward_that_ends_leaves_nobody_behind(tmp_path: Path) -> None:
    fabric = DirectFabric(tmp_path, ["a"])
    fabric.start(A, spec("sleep", "1000"))
    while not any(info.pid for info in fabric.processes(A)):
        fabric.poll({A: {JOB: 0}}, 0.05)
    pid, memory = fabric.processes(A)[0].pid, fabric.stewards[A].memory
    fabric.close()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
    assert not memory.exists()


def test_a_blob_that_is_not_what_it_says_is_refused(tmp_path: Path) -> None:
    blobs = FsspecBlobs(str(tmp_path / "blobs"))
    (tmp_path / "x").write_text("data")
    with (tmp_path / "x").open("rb") as file, pytest.raises(BrokenArtifact):
        blobs.put(file, expect="0" * 64)
    assert not list((tmp_path / "blobs").iterdir())
    stored = BlobSource(folder=str(tmp_path / "blobs")).store(tmp_path / "x", tmp_path)
    assert blobs.has(stored.sha256)


def test_this_hosts_cpus_are_found() -> None:
    assert len(cpu_devices()) == len(os.sched_getaffinity(0))
    assert len(cpu_devices(limit=1)) == 1


NPU_SMI = """
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.rc1                 Version: 24.1.rc1                                             |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 93.6        36                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3311 / 65536         |
+===========================+===============+====================================================+
| 1     910B3               | Warning       | 91.0        37                0    / 0             |
| 0                         | 0000:01:00.0  | 0           0    / 0          3312 / 65536         |
+===========================+===============+====================================================+
"""


def test_npu_smi_is_read() -> None:
    """The layout of `npu-smi info` on Atlas 800T A2, with made-up readings."""
    found = parse_npu_smi(NPU_SMI)
    assert [(d.index, d.model, d.memory_bytes >> 20, d.health) for d in found] == [
        (0, "910B3", 65536, "healthy"),
        (1, "910B3", 65536, "sub-healthy"),
    ]
    assert parse_npu_smi("nonsense") == []
