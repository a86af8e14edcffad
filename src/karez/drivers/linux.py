"""Calls of the Linux kernel that Python 3.11 has no functions for."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x8000000, 0x20000000  # linux/sched.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8  # linux/mount.h
MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 32, 4096, 16384, 1 << 19
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4  # linux/prctl.h
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
_libc = ctypes.CDLL(None, use_errno=True)


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
    _libc.setfsgid(user)
    _libc.setfsuid(user)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)


def _check(answer: int, what: str) -> None:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
