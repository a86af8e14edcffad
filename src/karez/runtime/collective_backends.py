"""The contract of a collective backend whose collectives can be aborted while under way."""

from typing import Protocol

import torch


class CollectiveBackend(Protocol):
    """The differences between backends. A group calls all but `begin_forming` under its lock."""

    backend: str
    """Name in torch.distributed."""
    is_queued: bool
    """Whether a collective's future is done before the collective is."""
    stops_device: bool
    """Whether an abort ends all work of the device."""

    @property
    def device(self) -> torch.device:
        """Device on which tensors must be to travel."""
        ...

    def begin_forming(self) -> None:
        """Prepare for a group: called before its rendezvous, and again after it.

        Raises RuntimeError if the device does not come back.
        """
        ...

    def mark_formed(self) -> None:
        """Note that the group has been formed."""
        ...

    def extend(self) -> None:
        """Note that groups of some of its ranks are being formed, until `mark_formed`."""
        ...

    def end_forming(self) -> None:
        """Note that forming has ended, with or without a group."""
        ...

    def abort(self) -> None:
        """Make what is under way fail. Raises nothing: a rank that stays stuck is replaced."""
        ...

    def leave(self) -> None:
        """Forget the group, which is being left."""
        ...
