"""Sockets that a library opens and does not tell of: found as descriptors of this process."""

import os
import socket
from collections.abc import Mapping


def open_sockets() -> dict[int, str]:
    """Return this process's sockets: file descriptor -> name by the kernel."""
    sockets: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the listing's own descriptor
        if target.startswith("socket:"):
            sockets[int(name)] = target
    return sockets


def opened_since(before: Mapping[int, str]) -> dict[int, str]:
    """Return the sockets that were opened after `before` was listed."""
    return {fd: name for fd, name in open_sockets().items() if before.get(fd) != name}


def shut(sockets: Mapping[int, str]) -> None:
    """Shut those that are still what they were.

    A listening one must live: without it gloo's own thread ends the process.
    """
    for fd, name in sockets.items():
        _shut(fd, name)


def _shut(fd: int, name: str) -> None:
    try:
        if os.readlink(f"/proc/self/fd/{fd}") != name:
            return
        with socket.socket(fileno=os.dup(fd)) as copy:
            if not copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                copy.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed meanwhile, which is as good
