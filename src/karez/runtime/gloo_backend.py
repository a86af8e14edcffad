"""Gloo as an abortable backend, by its sockets."""

import os
import socket

import torch
from typing_extensions import override

from karez.runtime.collective_backends import CollectiveBackend


class GlooBackend(CollectiveBackend):
    """Gloo, which has no abort of its own, but ends at once when its connected sockets are shut.

    Nothing in the API tells which these are (torch 2.13), so the sockets that forming a group
    opened are remembered.
    """

    backend = "gloo"
    device = torch.device("cpu")
    is_queued = False

    def __init__(self) -> None:
        """Start without a group."""
        self._sockets: dict[int, str] = {}
        """Sockets of the group, by file descriptor."""
        self._before_forming: dict[int, str] | None = None
        """Sockets that were open before the group that is being formed opened any."""
        self._before_group: dict[int, str] = {}
        """Sockets that were open after its rendezvous, whose connection outlives the group."""

    @override
    def begin_forming(self) -> None:
        self._before_group = _open_sockets()
        if self._before_forming is None:
            self._before_forming = self._before_group

    @override
    def mark_formed(self) -> None:
        self._sockets = _opened_since(self._before_group)

    @override
    def end_forming(self) -> None:
        self._before_forming = None

    @override
    def abort(self) -> None:
        """Shut the group's sockets, or those of a group that waits for a member to form."""
        before = self._before_forming
        sockets = self._sockets if before is None else _opened_since(before)
        for fd, name in sockets.items():
            _shut(fd, name)

    @override
    def leave(self) -> None:
        self._sockets = {}


def _opened_since(before: dict[int, str]) -> dict[int, str]:
    return {fd: name for fd, name in _open_sockets().items() if before.get(fd) != name}


def _open_sockets() -> dict[int, str]:
    sockets: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the listing's own descriptor
        if target.startswith("socket:"):
            sockets[int(name)] = target
    return sockets


def _shut(fd: int, name: str) -> None:
    """Shut a connected socket; a listening one must live, or gloo's own thread dies."""
    try:
        if os.readlink(f"/proc/self/fd/{fd}") != name:
            return
        with socket.socket(fileno=os.dup(fd)) as copy:
            if not copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                copy.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed meanwhile, which is as good
