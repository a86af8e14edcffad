"""Polls of several nodes under way at once, each in a reply that is waited for."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from karez.core.nodes import NodeId
from karez.core.processes import Cursors
from karez.core.workloads import WorkloadId

HOLD_S = 1.0
"""Seconds that a node may hold a poll back while nothing happens there."""

R = TypeVar("R", bound=Hashable)
"""The reply of an edge: a future, or a reference to one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Underway:
    """A poll that a node has not answered yet."""

    node: NodeId
    cursors: Cursors
    until: float
    """When it should have been answered, by the clock of `cover`."""


@dataclass(slots=True, kw_only=True)
class PollSet(Generic[R]):
    """The polls under way: one per node, and another while a workload is new there."""

    begin: Callable[[NodeId, Cursors], R]
    """Starts a poll of a node."""
    ready: Callable[[Sequence[R], float], Sequence[R]]
    """(replies, seconds) -> those that have come, waiting for the first of them."""
    limit_s: float
    """Seconds within which a node has to answer."""
    _polls: dict[R, Underway] = field(default_factory=dict)

    def cover(self, cursors: Mapping[NodeId, Cursors], now: float) -> None:
        """Have polls under way that will tell what comes after these cursors.

        `begin` may raise NodeLost.
        """
        asked: dict[tuple[NodeId, WorkloadId], int] = {}
        for poll in self._polls.values():
            for workload, after in poll.cursors.items():
                key = (poll.node, workload)
                asked[key] = min(after, asked.get(key, after))
        for node, of_node in cursors.items():
            if any(asked.get((node, one), after + 1) > after for one, after in of_node.items()):
                self._polls[self.begin(node, of_node)] = Underway(
                    node=node, cursors=of_node, until=now + self.limit_s
                )

    def take_answered(self, wait_s: float) -> list[tuple[NodeId, R]]:
        """The replies that have come, each once; waits for the first."""
        if not self._polls:
            return []
        answered = self.ready(list(self._polls), wait_s)
        return [(self._polls.pop(reply).node, reply) for reply in answered]

    def take_late(self, now: float) -> list[NodeId]:
        """Nodes that have not answered in time; their polls are given up."""
        late = {poll.node for poll in self._polls.values() if now > poll.until}
        for node in late:
            self.drop(node)
        return sorted(late)

    def drop(self, node: NodeId) -> None:
        """Give up the polls of a node."""
        for reply in [reply for reply, poll in self._polls.items() if poll.node == node]:
            del self._polls[reply]
