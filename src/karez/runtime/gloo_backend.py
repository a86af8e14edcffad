"""Gloo as an abortable backend, by its sockets."""

import torch
from typing_extensions import override

from karez.runtime.collective_backends import CollectiveBackend
from karez.transport.open_sockets import open_sockets, opened_since, shut


class GlooBackend(CollectiveBackend):
    """Gloo, which has no abort of its own, but ends at once when its connected sockets are shut.

    Nothing in the API tells which these are (torch 2.13), so the sockets that forming a group
    opened are remembered.
    """

    backend = "gloo"
    device = torch.device("cpu")
    is_queued = stops_device = False

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
        self._before_group = open_sockets()
        if self._before_forming is None:
            self._before_forming = self._before_group

    @override
    def mark_formed(self) -> None:
        self._sockets = opened_since(self._before_group)

    @override
    def extend(self) -> None:
        self._before_forming = self._before_group

    @override
    def end_forming(self) -> None:
        self._before_forming = None

    @override
    def abort(self) -> None:
        """Shut the group's sockets, or those of a group that waits for a member to form."""
        before = self._before_forming
        sockets = self._sockets if before is None else opened_since(before)
        shut(sockets)

    @override
    def leave(self) -> None:
        self._sockets = {}
