"""The sandbox of a job on a node, as fork servers make and enter it: by root, on Linux.

A sandbox is the namespaces for processes, mounts and IPC that all processes of one job share.
Its first process does nothing but hold it and reap: when it is killed, all in the sandbox are.
"""

import os
import resource
import signal
import stat
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from karez.core.mounts import Mount
from karez.drivers import linux
from karez.drivers.steward import subreaper


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A sandbox that is there, and the user that its processes run as."""

    pid: int
    """Id of its first process."""
    namespace: str
    """Its process namespace, as the kernel names it: ids of processes are used again."""
    user: int
    groups: Sequence[int] = ()
    """Further groups, such as those that may open the granted devices."""
    most_processes: int = 0
    """Processes and threads that the user may have on this node; 0: any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a user is to reach in a sandbox before it counts as made."""

    user: int
    paths: Sequence[str]
    """Folders and programs."""


def make(
    mounts: Sequence[Mount], close: Callable[[], None], trial: Trial | None = None
) -> tuple[int, str]:
    """Fork the first process of a new sandbox: (its id, the name of its process namespace).

    Args:
        mounts: What it sees otherwise than this process, outer mounts first.
        close: Closes what the new process is not to hold.
        trial: What must be reached in it.

    Raises:
        OSError: The kernel refuses, with its reason.
    """
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    read, write = os.pipe()
    try:
        linux.unshare(linux.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                os.close(read)
                os.close(own)
                close()
                _hold(mounts, write, trial)
        finally:
            linux.setns(own, linux.CLONE_NEWPID)
        os.close(write)
        write = -1
        problem = os.read(read, 4096).decode()
        if problem != _READY:
            os.waitpid(pid, 0)
            raise OSError(problem or "its first process ended")
        return pid, os.readlink(f"/proc/{pid}/ns/pid")
    finally:
        for fd in (own, read, write):
            if fd >= 0:
                os.close(fd)


_READY = "ready"


def _hold(mounts: Sequence[Mount], write: int, trial: Trial | None) -> NoReturn:
    """In the child: never returns."""
    try:
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        wakes = {signal.SIGCHLD, signal.SIGUSR1}
        signal.pthread_sigmask(signal.SIG_BLOCK, wakes)
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWIPC)
        _mount_all(mounts)
        if trial is not None:
            _try(trial)
        os.write(write, _READY.encode())
        os.close(write)
        while True:
            if signal.sigwait(wakes) == signal.SIGUSR1:
                subreaper.end_children()
            _reap()
    except OSError as error:
        traceback.print_exc()
        os.write(write, str(error).encode())
    finally:
        os._exit(1)


def _try(trial: Trial) -> None:
    """Reach all paths as a user. Raises OSError."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _change_user(trial.user, ())
        missing = [path for path in trial.paths if not os.access(path, os.R_OK | os.X_OK)]
        os.write(write, "".join(missing[:1]).encode())
        os._exit(0)
    os.close(write)
    is_well = os.waitpid(pid, 0)[1] == 0
    told = os.read(read, 4096).decode()
    os.close(read)
    if told or not is_well:
        raise OSError(f"user {trial.user} cannot reach {told or 'anything'}")


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _mount_all(mounts: Sequence[Mount]) -> None:
    sources = [os.open(one.source, os.O_PATH) if one.source else -1 for one in mounts]
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SLAVE)
    for one, source in zip(mounts, sources, strict=True):
        if source < 0:
            _make_place(Path(one.target), is_folder=True)
            mode = "mode=1777" if one.is_open else "mode=0755"
            flags = linux.MS_NOSUID | linux.MS_NODEV
            linux.mount("tmpfs", one.target, "tmpfs", flags, mode)
            continue
        _make_place(Path(one.target), is_folder=stat.S_ISDIR(os.fstat(source).st_mode))
        linux.mount(f"/proc/self/fd/{source}", one.target, flags=linux.MS_BIND | linux.MS_REC)
        if one.is_read_only:
            linux.make_read_only(one.target)
        os.close(source)
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("proc", "/proc", "proc", flags)  # of this sandbox: others' processes are not in it


def _make_place(target: Path, *, is_folder: bool) -> None:
    """Make what is mounted over, in a folder that hides the node's."""
    if target.exists():
        return
    if is_folder:
        target.mkdir(parents=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()


def fork_in(sandbox: Sandbox | None) -> int:
    """Fork a child that is in a sandbox, if one is given; it still sees the files of this process.

    Raises:
        OSError: The sandbox has ended.
    """
    if sandbox is None:
        return os.fork()
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    pid = -1
    try:
        _join(sandbox, ("pid", linux.CLONE_NEWPID))
        pid = os.fork()
    finally:
        if pid != 0:
            linux.setns(own, linux.CLONE_NEWPID)
        os.close(own)
    return pid


def enter(sandbox: Sandbox) -> None:
    """See the files of a sandbox that this process is in. Raises OSError."""
    _join(sandbox, ("ipc", linux.CLONE_NEWIPC), ("mnt", linux.CLONE_NEWNS))


def _join(sandbox: Sandbox, *kinds: tuple[str, int]) -> None:
    first = os.open(f"/proc/{sandbox.pid}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        if os.readlink("ns/pid", dir_fd=first) != sandbox.namespace:
            raise ProcessLookupError(f"the sandbox of process {sandbox.pid} has ended")
        namespaces = [(os.open(f"ns/{name}", os.O_RDONLY, dir_fd=first), k) for name, k in kinds]
    finally:
        os.close(first)
    for namespace, kind in namespaces:
        linux.setns(namespace, kind)
        os.close(namespace)


def end_orphans(sandbox: Sandbox) -> None:
    """Have a sandbox end what an ended process has left in it."""
    with suppress(OSError):  # it has ended itself
        if os.readlink(f"/proc/{sandbox.pid}/ns/pid") == sandbox.namespace:
            os.kill(sandbox.pid, signal.SIGUSR1)


def become_user(sandbox: Sandbox) -> None:
    """Give up root for the user of a sandbox, for good."""
    parent = os.getppid()
    if sandbox.most_processes:  # the kernel counts them by user
        resource.setrlimit(resource.RLIMIT_NPROC, (sandbox.most_processes,) * 2)
    _change_user(sandbox.user, sandbox.groups)
    linux.prctl(linux.PR_SET_DUMPABLE, 1)  # its /proc/self is its own again
    subreaper.die_with_parent(parent, signal.SIGKILL)  # the kernel forgets it with the change


def _change_user(user: int, groups: Sequence[int]) -> None:
    os.setgroups(list(groups))
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
