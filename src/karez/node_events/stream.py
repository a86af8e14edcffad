"""The events of one workload from several nodes, in one queue."""

import queue
from collections.abc import Callable

from karez.core.nodes import NodeId
from karez.core.processes import Event
from karez.core.workloads import WorkloadId
from karez.node_events.hub import NodeEventHub


class NodeEventStream:
    """Events that the hub has delivered and that are not handled yet."""

    def __init__(
        self, hub: NodeEventHub, workload: WorkloadId, on_event: Callable[[], None]
    ) -> None:
        """Follow no node yet; `on_event` is called, on another thread, when an event has come."""
        self._hub = hub
        self._workload = workload
        self.wake = on_event
        """Wakes the controller of the workload."""
        self._queue: queue.SimpleQueue[tuple[NodeId, Event | None]] = queue.SimpleQueue()
        self._nodes: set[NodeId] = set()

    def follow(self, node: NodeId) -> None:
        """Take the events of a node too, from the first event that it remembers."""
        if node and node not in self._nodes:
            self._nodes.add(node)
            self._hub.follow(self._workload, node, self._put)

    def next(self) -> tuple[NodeId, Event | None] | None:
        """The next event with its node; (node, None): the node is lost; None: nothing has come."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        """Follow no node any more."""
        self._hub.forget(self._workload, self._put)

    def _put(self, node: NodeId, event: Event | None) -> None:
        if event is None:
            self._nodes.discard(node)
        self._queue.put((node, event))
        self.wake()
