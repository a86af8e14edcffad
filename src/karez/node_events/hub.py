"""One poll for the events of all workloads on all nodes, and their delivery to the workloads."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from karez.core.nodes import NodeId
from karez.core.ports import Clock, Fabric, NodeEnded, NodeLost, PollAnswer
from karez.core.processes import Cursors, Event, Poll
from karez.core.workloads import WorkloadId

MISSES = 2
"""Polls in a row that must fail before a node counts as lost: one late answer is no loss."""
RETRY_S = 0.1
"""Seconds between two polls of a node that has not answered."""

Sink = Callable[[NodeId, Event | None], None]
"""Takes an event of a node; None: the node is lost, and is not followed any more."""


@dataclass(slots=True, kw_only=True)
class _Follower:
    sink: Sink
    after: int = 0
    """Number of the last event that was delivered."""
    boot_id: str = ""


@dataclass(slots=True, kw_only=True)
class NodeEventHub:
    """Follows workloads on nodes; one thread calls `pump`, any thread the rest."""

    fabric: Fabric
    clock: Clock
    _followers: dict[NodeId, dict[WorkloadId, _Follower]] = field(default_factory=dict)
    _asked: dict[NodeId, Cursors] = field(default_factory=dict)
    """What to ask each node for, as far as it is not in `_moved`."""
    _moved: set[NodeId] = field(default_factory=set)
    """Nodes of which other events are wanted than before."""
    _misses: dict[NodeId, int] = field(default_factory=dict)
    _retry_at: dict[NodeId, float] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def follow(self, workload: WorkloadId, node: NodeId, sink: Sink) -> None:
        """Deliver a workload's events on a node, from the first that the node remembers."""
        with self._changed:
            self._followers.setdefault(node, {})[workload] = _Follower(sink=sink)
            self._moved.add(node)
            self._changed.notify()

    def forget(self, workload: WorkloadId, sink: Sink) -> None:
        """Deliver no more events of a workload to this sink; another may follow it by now."""
        with self._changed:
            for node, followers in list(self._followers.items()):
                if workload in followers and followers[workload].sink == sink:
                    self._remove(node, workload)

    def pump(self, *, within_s: float) -> None:
        """Deliver what happens within this time, and return at the first of it."""
        cursors = self._cursors()
        if not cursors:
            with self._changed:
                self._changed.wait(within_s)
            return
        for node, answer in self.fabric.poll(cursors, within_s).items():
            for deliver in self._take(node, answer):
                deliver()

    def _cursors(self) -> dict[NodeId, Cursors]:
        now = self.clock.now()
        with self._changed:
            for node in self._moved & self._followers.keys():
                followers = self._followers[node].items()
                self._asked[node] = {workload: one.after for workload, one in followers}
            self._moved.clear()
            if not self._retry_at:
                return dict(self._asked)
            return {
                node: cursors
                for node, cursors in self._asked.items()
                if self._retry_at.get(node, now) <= now
            }

    def _take(self, node: NodeId, answer: PollAnswer) -> list[Callable[[], None]]:
        """The deliveries that an answer leads to; they are made without the lock."""
        with self._changed:
            if isinstance(answer, NodeLost):
                return self._miss(node, is_certain=isinstance(answer, NodeEnded))
            self._misses.pop(node, None)
            self._retry_at.pop(node, None)
            return self._deliveries(node, answer)

    def _miss(self, node: NodeId, *, is_certain: bool) -> list[Callable[[], None]]:
        self._misses[node] = self._misses.get(node, 0) + 1
        self._retry_at[node] = self.clock.now() + RETRY_S
        if not is_certain and self._misses[node] < MISSES:
            return []
        return [self._lose(node, workload) for workload in list(self._followers.get(node, {}))]

    def _deliveries(self, node: NodeId, poll: Poll) -> list[Callable[[], None]]:
        followers = self._followers.get(node, {})
        deliveries = []
        for workload, boot_id in poll.boot_ids.items():
            one = followers.get(workload)
            if one is not None and one.boot_id not in ("", boot_id):
                deliveries.append(self._lose(node, workload))  # its agent has lost every process
            elif one is not None:
                one.boot_id = boot_id
        current = {
            workload: one
            for workload, one in followers.items()
            if poll.cursors.get(workload, one.after + 1) <= one.after
        }  # the others began again after this poll was asked: it lacks what they need first
        for event in poll.events:
            one = current.get(event.workload)
            if one is not None and event.seq > one.after:
                one.after = event.seq
                self._moved.add(node)
                deliveries.append(_delivery(one.sink, node, event))
        return deliveries

    def _lose(self, node: NodeId, workload: WorkloadId) -> Callable[[], None]:
        sink = self._followers[node][workload].sink
        self._remove(node, workload)
        return _delivery(sink, node, None)

    def _remove(self, node: NodeId, workload: WorkloadId) -> None:
        followers = self._followers.get(node, {})
        followers.pop(workload, None)
        self._moved.add(node)
        if not followers:
            for of_nodes in (self._followers, self._asked, self._misses, self._retry_at):
                of_nodes.pop(node, None)


def _delivery(sink: Sink, node: NodeId, event: Event | None) -> Callable[[], None]:
    return lambda: sink(node, event)
