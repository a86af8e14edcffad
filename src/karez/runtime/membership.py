"""The place of a rank in the group of one generation, and the meeting of the group's members."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass

import torch.distributed as dist

from karez.runtime.host_clock import monotonic_s, pause

_FORMING_S, _FORMING_EACH_S = 2.0, 0.1
"""How long a group whose members are all there may take to form: 64 processes on two cores took
5.5 s (design notes on resilience), four take milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """The place of one rank in the group of one generation."""

    generation: int
    rank: int
    world: int
    store: str
    """host:port of the rendezvous store; empty for a group of one."""

    @property
    def forming_limit(self) -> datetime.timedelta:
        """How long the group may take to form once all its members have met."""
        return datetime.timedelta(seconds=max(_FORMING_S, _FORMING_EACH_S * self.world))


def meet_members(
    member: Membership, *, within_s: float, is_aborted: Callable[[], bool]
) -> dist.Store:
    """Wait at the rendezvous store until all members are there, and return the store.

    Gloo's own wait for a member that has died cannot be aborted.

    Raises:
        RuntimeError: The group was aborted, or a member did not arrive in time.
    """
    host, _, port = member.store.rpartition(":")
    limit = datetime.timedelta(seconds=within_s)
    store = dist.TCPStore(host, int(port), is_master=False, timeout=limit, use_libuv=False)
    keys = [f"here/{member.generation}/{rank}" for rank in range(member.world)]
    store.set(keys[member.rank], "")
    deadline_s = monotonic_s() + within_s
    while not store.check(keys):
        if is_aborted() or monotonic_s() > deadline_s:
            raise RuntimeError("the group was aborted, or a member did not come")
        pause(0.001)
    return store
