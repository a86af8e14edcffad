"""Calls of the Linux kernel that Python 3.11 has no functions for."""

import ctypes
import errno
import os
import platform
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x8000000, 0x20000000  # linux/sched.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8  # linux/mount.h
MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 32, 4096, 16384, 1 << 19
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4  # linux/prctl.h
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
_SYS_OPENAT2, _SYS_MOUNT_SETATTR = 437, 442  # the same on x86-64 and ARM64
_SYS_SETGROUPS = {"x86_64": 116, "aarch64": 159}
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 1, 2, 8  # linux/openat2.h
_AT_RECURSIVE, _MOUNT_ATTR_RDONLY = 0x8000, 1
_FILES = 65_536
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    """`struct open_how`, see openat2(2)."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("flags", "mode", "resolve"))


class _MountAttr(ctypes.Structure):
    """`struct mount_attr`, see mount_setattr(2)."""

    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")
    )


def unshare(flags: int) -> None:
    """Give this process, or with CLONE_NEWPID its children, namespaces of their own."""
    _check(_libc.unshare(flags), "unshare")


def setns(namespace: int, kind: int) -> None:
    """Enter a namespace, or with CLONE_NEWPID have the next children in it."""
    _check(_libc.setns(namespace, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Have a file system, or a part of one, at a place; see its page in section 2."""
    words = (source.encode(), target.encode(), kind.encode() or None)
    done = _libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None)
    _check(done, f"mount {kind or source} at {target}")


def make_read_only(target: str) -> None:
    """Let nobody write into what is mounted at a place, nor into what is mounted in it."""
    attributes = _MountAttr(_MOUNT_ATTR_RDONLY, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    words = (-1, target.encode(), _AT_RECURSIVE, ctypes.byref(attributes), size)
    if _libc.syscall(_SYS_MOUNT_SETATTR, *words) < 0:  # before Linux 5.12: the outermost alone
        mount("none", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY)


def open_beneath(folder: int, path: str, flags: int) -> int:
    """Open a path below an open folder, however its links are changed meanwhile.

    Links that leave the folder, links of /proc, and other file systems are not entered.

    Raises:
        OSError: It cannot be opened; EXDEV or ELOOP: it leads out of the folder.
    """
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_XDEV
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    found = _libc.syscall(_SYS_OPENAT2, folder, os.fsencode(path), ctypes.byref(how), size)
    if found < 0 and ctypes.get_errno() == errno.ENOSYS:  # before Linux 5.6: no link is followed
        return _open_without_links(folder, path, flags)
    _check(found, path)
    return int(found)


def _open_without_links(folder: int, path: str, flags: int) -> int:
    *above, name = path.split("/")
    if ".." in (*above, name):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    here = os.dup(folder)
    try:
        for part in above:
            inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = inner
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)


def prctl(option: int, value: int) -> None:
    """Change a property of this process."""
    _check(_libc.prctl(option, value, 0, 0, 0), "prctl")  # some refuse other arguments


@contextmanager
def files_as(user: int) -> Iterator[None]:
    """Have this thread alone reach files by the rights of another user; see setfsuid(2).

    What it makes belongs to that user. Does nothing where this process is not root.
    """
    if os.geteuid() != 0 or user == 0:
        yield
        return
    groups = os.getgroups()
    _set_groups([])
    _libc.setfsgid(user)
    _libc.setfsuid(user)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)
        _set_groups(groups)


def _set_groups(groups: Sequence[int]) -> None:
    """Set the further groups of this thread: the function of the C library sets all threads'."""
    number = _SYS_SETGROUPS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"the call is not known for {platform.machine()}")
    kept = (ctypes.c_uint32 * len(groups))(*groups)
    _check(_libc.syscall(number, len(groups), kept), "setgroups")


def allow_many_files() -> None:
    """Let this process, and those that it starts, have as many open files as it may choose."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(most, _FILES)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _check(answer: int, what: str) -> None:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
