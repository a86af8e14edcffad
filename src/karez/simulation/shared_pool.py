"""The production scheduler with replicas that follow the load, and one gang that trains."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from karez.core.gangs import GangSpec
from karez.core.nodes import Node
from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import devices_of
from karez.scheduling.decision_log import ClusterDelta, RecordedEngine, format_decision
from karez.scheduling.decisions import Action, Resize, Start
from karez.scheduling.queue.order import PendingWorkload, SchedulingPolicy
from karez.simulation.colocation_report import Colocation
from karez.simulation.replay import RESIZE_S

SERVING_PRIORITY, TRAINING_PRIORITY = 10, 0
TRAINING = WorkloadId("training")


class SharedPool:
    """One pool on which replicas start and stop beside an elastic training gang."""

    def __init__(self, sharing: Colocation, nodes: Sequence[Node]) -> None:
        """Queue the gang first."""
        self.sharing = sharing
        self.replicas: list[WorkloadId] = []
        self.trained_s = 0.0
        """Device-seconds of training."""
        self.resizes = 0
        self.replica_windows = 0
        """Sum over all windows of the number of replicas."""
        self._lines: list[str] = []
        self._engine_log = RecordedEngine()
        self._created = 0
        self._pending: list[WorkloadId] = []
        self._serves_at: dict[WorkloadId, float] = {}
        self._paused_s = 0.0
        self._first = ClusterDelta(
            at=0.0,
            is_reset=True,
            nodes=tuple(nodes),
            policy=SchedulingPolicy(preempts=True, elastic=True),
            arrived=(_training(sharing.training),),
        )

    @property
    def training_devices(self) -> float:
        """Devices that train now."""
        gang = self._engine_log.engine.cluster.running.get(TRAINING)
        return devices_of(gang.workers) if gang is not None else 0.0

    def ready(self, at: float, window_s: float) -> float:
        """Replicas that serve, averaged over a window: each counts once it has started."""
        spans = (at + window_s - self._serves_at[replica] for replica in self.replicas)
        return sum(min(1.0, max(0.0, span / window_s)) for span in spans)

    def advance(self, at: float, count: int) -> None:
        """Bring the replicas to a number, as far as capacity allows."""
        missing = count - len(self.replicas) - len(self._pending)
        arrived = [self._new_replica(at) for _ in range(max(0, missing))]
        ended: list[WorkloadId] = []
        while len(self.replicas) > count:
            ended.append(self.replicas.pop())
        step = replace(
            self._first, at=at, ended=tuple(ended), arrived=(*arrived, *self._first.arrived)
        )
        self._first = ClusterDelta(at=0.0)
        for action in self._engine_log.advance(step):
            self._lines.append(format_decision(at, action))
            self._carry_out(action, at)
        self.replica_windows += len(self.replicas)

    def train(self, span_s: float) -> None:
        """Count the training of a span of time, less what resizes cost."""
        works_s = max(0.0, span_s - self._paused_s)
        self.trained_s += works_s * self.training_devices
        self._paused_s = 0.0

    def digest(self) -> str:
        """SHA-256 of all decisions, line by line."""
        return hashlib.sha256("\n".join([*self._lines, ""]).encode()).hexdigest()

    def _carry_out(self, action: Action, at: float) -> None:
        if isinstance(action, Start) and action.id != TRAINING:
            self._pending.remove(action.id)
            self.replicas.append(action.id)
            self._serves_at[action.id] = at + self.sharing.start_s
        elif isinstance(action, Resize):
            self.resizes += 1
            self._paused_s += RESIZE_S

    def _new_replica(self, at: float) -> PendingWorkload:
        self._created += 1
        ident = WorkloadId(f"replica-{self._created}")
        self._pending.append(ident)
        return PendingWorkload(
            id=ident,
            project="serving",
            gang=GangSpec(each=(self.sharing.replica,)),
            priority=SERVING_PRIORITY,
            since=at,
            order=self._created,
            preemptible=False,
        )


def _training(gang: GangSpec) -> PendingWorkload:
    return PendingWorkload(
        id=TRAINING,
        project="training",
        gang=gang,
        priority=TRAINING_PRIORITY,
        since=0.0,
        preemptible=True,
    )
