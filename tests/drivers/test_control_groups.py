"""Control groups: what is written where, and that the kernel holds processes where it can."""

import os
import signal
from pathlib import Path

import pytest

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.drivers.steward import resource_limits
from karez.drivers.steward.control_groups import ControlGroups, mounted_at
from tests.drivers.test_steward import A, exit_of, spec
from tests.fakes import DirectFabric

GRANT = Grant(node=A, kind=DeviceKind.CPU, devices=((0, 1000), (1, 500)), memory_bytes=256 << 20)
MOUNTS = """22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda rw
31 22 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


def test_where_they_are_mounted() -> None:
    assert mounted_at(MOUNTS) == Path("/sys/fs/cgroup/unified")
    assert mounted_at(MOUNTS.replace("cgroup2", "cgroup")) is None


def test_limits_are_those_of_the_grant(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    groups = ControlGroups("karez-x", tmp_path)
    folder = Path(groups.make("job-1.0.1", GRANT, 100))
    assert folder == tmp_path / "karez-x" / "job-1.0.1"
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "cpuset.cpus": "0,1",
        "memory.max": str((768 + 1024) << 20),
        "memory.oom.group": "1",
        "pids.max": "100",
    }
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+pids"
    assert sorted(groups.held()) == ["cpu", "memory"]
    assert Path(groups.make("job-1.store.1", None, 0)).is_dir()
    (folder / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert groups.was_out_of_memory("job-1.0.1")
    (folder / "memory.events").write_text("low 0\noom 0\noom_kill 0\n")
    assert not groups.was_out_of_memory("job-1.0.1")
    assert not groups.was_out_of_memory("job-1.store.1")


def test_without_the_right_or_controllers_checks_alone_hold_processes(tmp_path: Path) -> None:
    groups = ControlGroups("karez-x", tmp_path)  # no cgroup.controllers: not a mount of them
    assert (groups.make("job-1.0.1", GRANT, 100), groups.held()) == ("", {})
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    groups = ControlGroups("karez-x", tmp_path)
    assert (list(Path(groups.make("k", GRANT, 100)).iterdir()), groups.held()) == ([], {})
    groups.close()
    assert not (tmp_path / "karez-x").exists()


def controllers() -> frozenset[str]:
    """Those of this host."""
    groups = ControlGroups(f"karez-test-{os.getpid()}")
    groups.close()
    return groups.controllers


@pytest.mark.story
def test_a_process_is_in_its_group_which_goes_with_it(tmp_path: Path) -> None:
    fabric = DirectFabric(tmp_path, ["a"])
    try:
        own = fabric.stewards[A]._launcher.orders.groups
        if not own._is_usable:
            pytest.skip("this host lets nobody make control groups of version 2")
        fabric.start(
            A, spec("sh", "-c", "cat /proc/self/cgroup; grep Cpus_allowed_list /proc/self/status")
        )
        exit_of(fabric)
        said = fabric.read_log(A, "job-1.0.1", 0, 4000).data.decode()
        assert f"{own._base.name}/job-1.0.1\n" in said
        assert not (own._base / "job-1.0.1").exists()
    finally:
        fabric.close()
    assert not own._base.exists()


@pytest.mark.story
def test_a_process_that_pins_itself_elsewhere_stays_on_its_cores(tmp_path: Path) -> None:
    if "cpuset" not in controllers():
        pytest.skip("this host has no cpuset controller of version 2")
    fabric = DirectFabric(tmp_path, ["a"])
    try:
        grant = Grant(node=A, kind=DeviceKind.CPU, devices=((0, 1000),))
        text = (
            "import os; os.sched_setaffinity(0, range(os.cpu_count()))\n"
            "print(os.sched_getaffinity(0))"
        )
        fabric.start(A, spec("python", "-c", text, grant=grant))
        exit_of(fabric)
        assert fabric.read_log(A, "job-1.0.1", 0, 4000).data == b"{0}\n"
    finally:
        fabric.close()


@pytest.mark.story
def test_memory_that_is_taken_between_two_checks_ends_the_process_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "memory" not in controllers():
        pytest.skip("this host has no memory controller of version 2")
    monkeypatch.setattr(resource_limits, "memory_of", lambda _: 0)
    fabric = DirectFabric(tmp_path, ["a"])
    try:
        text = "b = bytearray(3 << 30); b[::4096] = bytes(3 << 18)"
        fabric.start(A, spec("python", "-c", text, grant=GRANT))
        ended = exit_of(fabric)
        assert ended.data["code"] in (137, -signal.SIGKILL)
        assert "of memory and was granted" in ended.data["error"]
    finally:
        fabric.close()
