"""Control groups, version 2: the kernel holds each process of a job to what it was granted.

One group for each process of a job, with all that it starts. Source: the kernel's documentation,
cgroup-v2. Without a controller, or without the right to make groups, its limit is left to the
checks of resource_limits and to the affinity of processes.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from karez.core.grants import Grant
from karez.drivers.steward.environment import cores_of

log = structlog.get_logger()
_WANTED = ("cpuset", "memory", "pids")
_TIMES, _SLACK_BYTES = 3, 1 << 30


def mounted_at(mountinfo: str) -> Path | None:
    """Where control groups of version 2 are mounted, by /proc/self/mountinfo; see proc(5)."""
    for line in mountinfo.splitlines():
        mount, _, kind = line.partition(" - ")
        if kind.split()[:1] == ["cgroup2"]:
            return Path(mount.split()[4])
    return None


class ControlGroups:
    """The groups of one node agent."""

    def __init__(self, name: str, root: Path | None = None) -> None:
        """Make the agent's own group, where that is allowed.

        Args:
            name: Its name.
            root: Where control groups are mounted; by default where this host has them.
        """
        root = root or mounted_at(Path("/proc/self/mountinfo").read_text())
        self._base = Path() if root is None else root / name
        self.controllers: frozenset[str] = frozenset()
        """Those that hold processes here."""
        self._is_usable = False
        if root is None:
            return
        try:
            self._base.mkdir(exist_ok=True)
            there = set((root / "cgroup.controllers").read_text().split())
            self.controllers = frozenset(
                one for one in _WANTED if one in there and _enable(one, root, self._base)
            )
            self._is_usable = True
        except OSError as error:
            log.info("control-groups.missing", why=str(error))

    def make(self, key: str, grant: Grant | None, most_processes: int) -> str:
        """Make the group of a process with its limits; returns its folder, empty: it has none."""
        if not self._is_usable:
            return ""
        folder = self._base / key
        try:
            folder.mkdir(exist_ok=True)
            for name, value in self._limits(grant, most_processes).items():
                (folder / name).write_text(value)
        except OSError as error:
            log.warning("control-groups.not-made", process=key, why=str(error))
            return ""
        return str(folder)

    def _limits(self, grant: Grant | None, most_processes: int) -> Mapping[str, str]:
        limits: dict[str, str] = {}
        if "pids" in self.controllers and most_processes:
            limits["pids.max"] = str(most_processes)
        if "cpuset" in self.controllers and (cores := cores_of(grant)):
            limits["cpuset.cpus"] = ",".join(map(str, cores))
        if "memory" in self.controllers and grant is not None and grant.memory_bytes:
            # far above the grant, of which shared memory (snapshots, loaders) is no part here
            limits["memory.max"] = str(_TIMES * grant.memory_bytes + _SLACK_BYTES)
            limits["memory.oom.group"] = "1"
        return limits

    def held(self) -> Mapping[str, str]:
        """What the kernel holds back, by the names of resources, for people."""
        said = {
            "cpuset": ("cpu", "the kernel keeps processes on the granted cores (cgroup v2)"),
            "memory": (
                "memory",
                "checked every second; a process that takes more than it was granted is ended, at "
                "three times as much, shared memory included, by the kernel (cgroup v2)",
            ),
        }
        return dict(said[one] for one in sorted(self.controllers) if one in said)

    def was_out_of_memory(self, key: str) -> bool:
        """Whether the kernel has ended a process for its memory."""
        with suppress(OSError):
            events = (self._base / key / "memory.events").read_text().splitlines()
            return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in events)
        return False

    def remove(self, key: str) -> None:
        """Remove the group of a process that has ended."""
        if self._is_usable:
            with suppress(OSError):  # it has none, or one of its shells is still ending
                (self._base / key).rmdir()

    def close(self) -> None:
        """Remove all groups in which nothing runs."""
        if not self._is_usable:
            return
        with suppress(OSError):
            for folder in (*self._base.iterdir(), self._base):
                if folder.is_dir():
                    with suppress(OSError):
                        folder.rmdir()


def _enable(controller: str, *folders: Path) -> bool:
    """Let the groups in these folders have limits of a controller."""
    try:
        for folder in folders:
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
    except OSError:  # such as that of version 1, or in a container without the right
        return False
    return True
