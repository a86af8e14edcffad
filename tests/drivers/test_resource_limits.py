"""What is granted is held to: memory, storage, cores; and probes that really look."""

import threading
from pathlib import Path
from typing import Any

import pytest

from karez.core.devices import DeviceKind, Health
from karez.core.grants import Grant
from karez.core.messages.replicas import (
    Done,
    DropJob,
    ForgetRank,
    ListReplicas,
    PutReplica,
    ReplicaAnswer,
    ReplicaList,
    ReplicaRequest,
)
from karez.core.nodes import Isolation
from karez.drivers.probes import LIMITS, davinci_devices, disk_devices, network_devices, probe_node
from karez.drivers.steward import watchdogs
from karez.drivers.steward.process_table import ProcessTable
from karez.drivers.steward.replica_server import ReplicaServer
from karez.drivers.steward.resource_limits import OVER_CODE, memory_of, storage_of
from tests.drivers.test_steward import JOB, A, exit_of, spec
from tests.fakes import DirectFabric

MIB = 1 << 20


def held(**more: object) -> Grant:
    return Grant(node=A, kind=DeviceKind.CPU, devices=((0, 1000),), **more)  # type: ignore[arg-type]


@pytest.mark.story
def test_what_takes_more_memory_than_it_was_granted_is_ended_with_the_reason(
    fabric: DirectFabric,
) -> None:
    grow = "import time; kept = bytearray(200 << 20); kept[::4096] = b'x' * len(kept[::4096]); "
    fabric.start(
        A, spec("python3", "-c", grow + "time.sleep(1000)", grant=held(memory_bytes=100 * MIB))
    )
    ended = exit_of(fabric)
    assert ended.data["code"] == OVER_CODE
    assert "of memory and was granted 100.0 MiB" in ended.data["error"]
    assert "ask for memory=" in ended.data["error"]


@pytest.mark.story
def test_what_stays_within_its_grant_is_left_alone(fabric: DirectFabric) -> None:
    fabric.start(A, spec("sh", "-c", "sleep 1.3", grant=held(memory_bytes=100 * MIB)))
    assert exit_of(fabric).data["code"] == 0


@pytest.mark.story
@pytest.mark.parametrize("folder", ["$KAREZ_OUT", "$HOME"])
def test_what_writes_more_than_it_was_granted_is_ended(fabric: DirectFabric, folder: str) -> None:
    if folder == "$HOME" and fabric.nodes()[0].isolation == Isolation.NONE:
        pytest.skip("it has no home of its own here")
    script = f"dd if=/dev/zero of={folder}/big bs=1M count=20 2>/dev/null; sleep 1000"
    fabric.start(A, spec("sh", "-c", script, grant=held(storage_bytes=5 * MIB)))
    ended = exit_of(fabric)
    assert ended.data["code"] == OVER_CODE
    assert "of storage and was granted 5.0 MiB" in ended.data["error"]


def test_cores_beside_an_accelerator_are_held_to(fabric: DirectFabric) -> None:
    grant = Grant(
        node=A, kind=DeviceKind.NPU, devices=((3, 1000),), cores=((0, 1000),), memory_bytes=0
    )
    script = "taskset -p $$ | sed 's/.*: //'; echo $OMP_NUM_THREADS $ASCEND_RT_VISIBLE_DEVICES"
    fabric.start(A, spec("sh", "-c", script, grant=grant))
    exit_of(fabric)
    assert fabric.read_log(A, "job-1.0.1", 0, 1000).data.decode().split() == ["1", "1", "3"]
    assert fabric.processes(A)[0].grant == grant
    fabric.purge(A, JOB)


def test_measures_survive_what_goes_away_meanwhile(tmp_path: Path) -> None:
    assert memory_of(1 << 22) == 0  # beyond the largest pid
    assert storage_of(tmp_path / "not-there") == 0
    (tmp_path / "own").write_bytes(b"x" * 10_000)
    assert 10_000 <= storage_of(tmp_path) < 20_000


def card(sys: Path, name: str, *, state: str = "up", speed: str = "100000", **ids: str) -> None:
    """An interface as Linux shows it below /sys."""
    folder = sys / "class" / "net" / name
    folder.mkdir(parents=True)
    (folder / "operstate").write_text(f"{state}\n")
    (folder / "speed").write_text(f"{speed}\n")
    if ids:
        (folder / "device").mkdir()
        for key, value in ids.items():
            (folder / "device" / key).write_text(f"{value}\n")


def test_network_cards_are_found_by_their_hardware(tmp_path: Path) -> None:
    card(tmp_path, "lo", state="unknown")
    card(tmp_path, "bond0")
    card(tmp_path, "eth0", vendor="0x15b3", device="0xa2dc", speed="200000")
    card(tmp_path, "eth1", vendor="0x19e5", device="0x1822", state="down", speed="-1")
    card(tmp_path, "eth2", vendor="0x8086", device="0x1592", speed="25000")
    found = network_devices(tmp_path)
    assert [(d.index, d.model, d.health) for d in found] == [
        (0, "BlueField-3 200 Gbit/s", Health.HEALTHY),
        (1, "Hi1822", Health.SEPARATED),
        (2, "network card 25 Gbit/s", Health.HEALTHY),
    ]
    assert network_devices(tmp_path / "nothing") == []


def test_the_disk_below_a_folder_is_offered_less_a_reserve(tmp_path: Path) -> None:
    (disk,) = disk_devices(str(tmp_path))
    assert disk.kind == DeviceKind.STORAGE
    assert disk.memory_bytes > 0
    assert disk.memory_bytes % 2**30 == 0
    assert disk_devices(str(tmp_path / "not-there")) == ()


def test_a_node_says_how_it_enforces_what_it_grants(tmp_path: Path) -> None:
    node = probe_node(A, "127.0.0.1", cpus=1, folder=str(tmp_path))
    assert node.limits == LIMITS
    assert set(LIMITS) == {str(kind) for kind in DeviceKind}
    assert "not enforced" in node.limits["dpu"]
    assert node.memory_bytes > 0


def test_a_keeper_holds_what_was_granted_and_fences_off_older_epochs(tmp_path: Path) -> None:
    keeper = ReplicaServer("t", tmp_path)

    def ask(request: ReplicaRequest, size: int = 0) -> ReplicaAnswer:
        return keeper.answer(request, b"x" * size, {})[0]

    def put(step: int, size: int, **more: Any) -> ReplicaAnswer:
        return ask(PutReplica(job="j", rank=0, step=step, **more), size)

    def held(rank: int) -> ReplicaAnswer:
        return ask(ListReplicas(job="j", rank=rank))

    nothing = ReplicaList(replicas=())
    assert put(1, 100, limit_bytes=250, epoch=2) == Done(ok=True)
    assert put(2, 100, limit_bytes=250, epoch=2) == Done(ok=True)
    assert put(3, 200, limit_bytes=250, epoch=2) == Done(ok=False, full_bytes=300)
    assert put(3, 100, limit_bytes=250, epoch=1) == Done(ok=False)
    assert put(3, 100, limit_bytes=250, epoch=3, generation=7) == Done(ok=True)
    steps = ReplicaList(replicas=((2, True, 0), (3, True, 7)))
    assert held(0) == steps
    ask(PutReplica(job="j", rank=1, step=3, epoch=3), 1)
    ask(ForgetRank(job="j", rank=1))
    assert held(1) == nothing
    assert held(0) == steps
    ask(DropJob(job="j"))
    assert held(0) == nothing
    assert put(1, 1, epoch=1) == Done(ok=True)


def test_npus_are_counted_by_their_device_files_where_the_tool_is_absent(tmp_path: Path) -> None:
    for name in ("davinci0", "davinci10", "davinci2", "davinci_manager", "davinci"):
        (tmp_path / name).touch()
    assert [device.index for device in davinci_devices(tmp_path)] == [0, 2, 10]
    assert davinci_devices(tmp_path / "none") == []


def test_the_reason_stays_until_a_process_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end may take longer than the time to the next check, at which it uses nothing."""
    table, used = ProcessTable(), iter(["took too much", *[""] * 100])
    kills: list[str] = []
    checks: list[int] = []
    looked = threading.Event()

    def drop_old(*_: object) -> None:
        checks.append(len(kills))
        if checks.count(1) > 2:
            looked.set()

    table.add(spec("true", grant=held(memory_bytes=MIB)), tmp_path)
    table.started("job-1.0.1", 1, 2)
    monkeypatch.setattr(watchdogs, "CHECK_S", 0.01)
    monkeypatch.setattr(watchdogs, "over_limit", lambda *_: next(used))
    monkeypatch.setattr(watchdogs, "drop_old", drop_old)
    watchdogs.ResourceEnforcer(table, kills.append, kills.append, 1000)
    assert looked.wait(10)
    (process,) = table.tracked()
    table.ended("job-1.0.1", -9, "")
    assert (process.info.exit_code, process.info.error) == (OVER_CODE, "took too much")
    assert kills == ["job-1.0.1"]
