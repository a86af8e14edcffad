"""Limits that a container or a service manager sets for this process: control groups, v1 and v2."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60
"""Version 1 writes a huge number where there is no limit."""


def memory_limit(root: Path = ROOT, membership: str | None = None) -> int:
    """Return the bytes that this process and its siblings may use; 0: no limit.

    Source: the kernel's documentation, cgroup-v2 `memory.max` and cgroup-v1
    `memory.limit_in_bytes`. The least limit on the way up to the root counts.
    """
    v2 = [_number(folder / "memory.max") for folder in _folders(root, "", membership)]
    v1 = [
        _number(folder / "memory.limit_in_bytes")
        for folder in _folders(root / "memory", "memory", membership)
    ]
    return min((limit for limit in (*v2, *v1) if 0 < limit < _UNLIMITED), default=0)


def cpu_limit(root: Path = ROOT, membership: str | None = None) -> float:
    """Return the CPUs whose time this process and its siblings may use; 0: no limit.

    Source: cgroup-v2 `cpu.max` ("QUOTA PERIOD"), cgroup-v1 `cpu.cfs_quota_us` and
    `cpu.cfs_period_us`.
    """
    shares = []
    for folder in _folders(root, "", membership):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            shares.append(int(quota) / int(period))
    for folder in _folders(root / "cpu", "cpu", membership):
        limit, span = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if limit > 0 and span > 0:
            shares.append(limit / span)
    return min(shares, default=0.0)


def _folders(root: Path, controller: str, membership: str | None) -> Iterator[Path]:
    """Folders of this process's group and of those above it, up to the root.

    Inside a container the root is the container's own group.
    """
    lines = (_text(Path("/proc/self/cgroup")) if membership is None else membership).splitlines()
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):
            folder = root / path.lstrip("/")
            while folder != root and root in folder.parents:
                yield folder
                folder = folder.parent
    yield root


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
