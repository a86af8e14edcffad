"""Polls the events of one workload from several nodes at once."""

import queue
import threading

from karez.core.nodes import NodeId
from karez.core.ports import Fabric, NodeEnded, NodeLost
from karez.core.processes import Event
from karez.core.workloads import WorkloadId

MISSES = 2
"""Polls in a row that must fail before a node counts as lost: one late answer is no loss."""


class NodeEventStream:
    """Polls each node in a thread of its own and merges the events into one queue."""

    def __init__(self, fabric: Fabric, workload: WorkloadId, stopped: threading.Event) -> None:
        """Poll until `stopped` is set."""
        self._fabric = fabric
        self._workload = workload
        self._stopped = stopped
        self._queue: queue.SimpleQueue[tuple[NodeId, Event | None]] = queue.SimpleQueue()
        self._nodes: set[NodeId] = set()

    def follow(self, node: NodeId) -> None:
        """Poll a node too, from the first event that it remembers."""
        if node and node not in self._nodes:
            self._nodes.add(node)
            threading.Thread(target=self._poll, args=(node,), daemon=True).start()

    def next(self, *, within_s: float) -> tuple[NodeId, Event | None] | None:
        """The next event with its node; (node, None): the node is lost; None: nothing happened."""
        try:
            return self._queue.get(timeout=within_s)
        except queue.Empty:
            return None

    def _poll(self, node: NodeId) -> None:
        after, boot, misses = 0, "", 0
        while not self._stopped.is_set():
            try:
                answer = self._fabric.poll(node, self._workload, after, 1.0)
            except NodeEnded:
                break
            except NodeLost:
                misses += 1
                if misses >= MISSES:
                    break
                continue
            if boot and answer.agent_boot_id != boot:
                break  # its node agent has restarted and has lost every process
            boot, misses, after = answer.agent_boot_id, 0, answer.seq
            for event in answer.events:
                self._queue.put((node, event))
        self._nodes.discard(node)
        if not self._stopped.is_set():
            self._queue.put((node, None))
