"""The files that a job's processes see in their sandbox: its own, and what is installed."""

import os
import site
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.mounts import Mount, blocked_at, mount_plan
from karez.core.processes import ProcessSpec
from karez.core.workloads import WorkloadId

_OUR_ROOT = Path(__file__).parents[3]
OF_THE_JOB = ("tmp", "home")
"""Folders that all processes of a job share: its /tmp, and its home."""
_TMP = ("tmp", "var/tmp")
_OPEN = ("dev/shm", "dev/mqueue", "run/lock", "var/crash")
"""Folders that everybody may write into, in memory: what is left there, others would find."""
_DEVICE_FILES = {
    DeviceKind.GPU: ("nvidia*", "dri/renderD*", "kfd"),
    DeviceKind.NPU: ("davinci*", "devmm_svm", "hisi_hdc"),
}
"""Kind of device -> patterns of its files in /dev."""


class JobFiles:
    """The folders of jobs on a node, and what else their processes see."""

    def __init__(self, home: Path, memory: Path, bound: Sequence[Mount] = ()) -> None:
        """Keep folders below `home`, and what is shared in memory below `memory`.

        `bound` are folders that an operator wants jobs to see; those that are not here are left
        out.
        """
        self._home, self._memory = home, memory
        self._bound = [one for one in bound if Path(one.source).exists()]

    def folders(self, workload: WorkloadId) -> tuple[Path, Path]:
        """A job's folder, and that in shared memory."""
        return self._home / "work" / workload, self._memory / workload

    def variables(self, spec: ProcessSpec) -> dict[str, str]:
        """Variables by which a process knows its user and that user's folders."""
        work, _ = self.folders(spec.workload)
        name = _user_name(spec.project)
        return {"HOME": str(work / "home"), "USER": name, "LOGNAME": name, "TMPDIR": f"/{_TMP[0]}"}

    def mounts(self, spec: ProcessSpec, user: int) -> list[Mount]:
        """Make a job's own folders for a user, and say what its processes see."""
        work, memory = self.folders(spec.workload)
        cache = self._home / "caches" / str(user)
        (temporary, home), etc = (work / name for name in OF_THE_JOB), work / "etc"
        environments = self._home / "environments" / str(user)
        for folder in (work, etc, environments):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            folder.chmod(0o755)
        for folder in (temporary, home, memory, cache):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            give(folder, user)
        name = _user_name(spec.project)
        _extend("passwd", f"{name}:x:{user}:{user}::{home}:/bin/sh", etc)
        _extend("group", f"{name}:x:{user}:", etc)
        own = [work, memory, self._memory / "steward.sock"]
        shared = [environments, *installed()]
        reached = (*own, *shared, *(Path(one.source) for one in self._bound))
        hidden = {blocked for one in reached if (blocked := _blocked_at(one))}
        return mount_plan(
            [
                *(Mount(target=folder) for folder in {*hidden, str(self._home)}),
                *(Mount(target=f"/{one}", is_open=True) for one in _OPEN if _is_folder(one)),
                *(Mount(target=f"/{one}", source=str(temporary)) for one in _TMP),
            ],
            [
                *(Mount(target=str(one), source=str(one)) for one in own),
                *(_read_only(one, one) for one in shared),
                *self._bound,
                Mount(target=str(self._home / "cache"), source=str(cache)),
                *(_read_only(etc / one, Path("/etc") / one) for one in ("passwd", "group")),
            ],
        )


def give(folder: Path, user: int) -> None:
    """Give a folder and all below it to a user, links themselves and not what they lead to.

    The folder itself comes last: one that the user has is not looked at again, since then its
    content is the user's to change.
    """
    if folder.stat(follow_symlinks=False).st_uid == user:
        return
    for _, folders, files, here in os.fwalk(folder):
        for name in (*folders, *files):
            os.chown(name, user, user, dir_fd=here, follow_symlinks=False)
    os.chown(folder, user, user, follow_symlinks=False)


def device_groups(grant: Grant | None) -> Sequence[int]:
    """Groups that may open the files of the granted kind of device, where not everybody may."""
    patterns = () if grant is None or grant.is_emulated else _DEVICE_FILES.get(grant.kind, ())
    found = [path.stat() for pattern in patterns for path in Path("/dev").glob(pattern)]
    is_limited = [one for one in found if stat.S_ISCHR(one.st_mode) and not one.st_mode & 0o006]
    return sorted({one.st_gid for one in is_limited if one.st_gid and one.st_mode & 0o060})


def _user_name(project: str) -> str:
    return f"karez-{project}"


def _extend(name: str, line: str, folder: Path) -> None:
    """Write a file of /etc with one more line."""
    known = Path("/etc") / name
    (folder / name).write_text(f"{known.read_text() if known.exists() else ''}{line}\n")
    (folder / name).chmod(0o644)


def _read_only(source: Path, target: Path) -> Mount:
    return Mount(source=str(source), target=str(target), is_read_only=True)


def installed() -> list[Path]:
    """Folders of this Python and its packages, and of karez."""
    names = {sys.prefix, sys.base_prefix, *site.getsitepackages()}
    folders = {Path(name) for name in names} | {_OUR_ROOT}
    return sorted(folder for folder in folders if folder.is_dir())


def _is_folder(name: str) -> bool:
    path = Path("/", name)
    return path.is_dir() and not path.is_symlink()


def _blocked_at(path: Path) -> str:
    above = [*reversed(path.parents), path]
    modes = [(str(folder), stat.S_IMODE(folder.stat().st_mode)) for folder in above]
    return blocked_at(str(path), modes)
