"""Limits of control groups, on trees as the kernel lays them out."""

from pathlib import Path

import pytest

from karez.drivers.cgroups import cpu_limit, memory_limit

GIB = 1 << 30


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_a_container_of_version_2_sees_its_limits_at_the_root(tmp_path: Path) -> None:
    root = tree(tmp_path, memory_dot_max=str(2 * GIB), cpu_dot_max="150000 100000")
    assert memory_limit(root, "0::/") == 2 * GIB
    assert cpu_limit(root, "0::/") == 1.5


def test_the_least_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        slice__memory_dot_max=str(GIB),
        slice__unit__memory_dot_max="max",
        slice__cpu_dot_max="max 100000",
        slice__unit__cpu_dot_max="400000 100000",
    )
    assert memory_limit(root, "0::/slice/unit") == GIB
    assert cpu_limit(root, "0::/slice/unit") == 4.0


def test_version_1_has_a_folder_for_each_controller(tmp_path: Path) -> None:
    root = tree(tmp_path)
    for path, text in (
        ("memory/docker/x/memory.limit_in_bytes", str(3 * GIB)),
        ("memory/memory.limit_in_bytes", str(2**63 - 4096)),
        ("cpu/docker/x/cpu.cfs_quota_us", "50000"),
        ("cpu/docker/x/cpu.cfs_period_us", "100000"),
        ("cpu/cpu.cfs_quota_us", "-1"),
        ("cpu/cpu.cfs_period_us", "100000"),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    membership = "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/"
    assert memory_limit(root, membership) == 3 * GIB
    assert cpu_limit(root, membership) == 0.5


@pytest.mark.parametrize("membership", ["", "nonsense", "0::/../..", "0::/gone"])
def test_where_nothing_can_be_read_there_is_no_limit(tmp_path: Path, membership: str) -> None:
    assert memory_limit(tmp_path / "none", membership) == 0
    assert cpu_limit(tmp_path / "none", membership) == 0.0
