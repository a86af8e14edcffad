"""The production scheduler with replicas that follow the requests, and elastic gangs that train."""

import hashlib
import math
from collections.abc import Sequence

from karez.core.gangs import GangSpec
from karez.core.nodes import Node
from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import devices_of
from karez.scheduling.decision_log import ClusterDelta, RecordedEngine, format_decision
from karez.scheduling.decisions import Action, Resize, Start
from karez.scheduling.preemption.elastic import RESIZE_S
from karez.scheduling.queue.order import PendingWorkload, SchedulingPolicy
from karez.simulation.colocation_report import LEAVE_S, Colocation

SERVING_PRIORITY, TRAINING_PRIORITY = 10, 0
BEFORE_S = 86_400.0
"""How long before the first request the gangs begin, so that they have grown by then."""
PASSES = 4


class SharedPool:
    """One pool on which replicas start and stop beside elastic training gangs."""

    def __init__(self, sharing: Colocation, nodes: Sequence[Node], replicas: int) -> None:
        """Begin with these replicas ready, and gangs on the rest."""
        self.sharing = sharing
        self.replicas: list[WorkloadId] = []
        self.lost_s = 0.0
        """Device-seconds of training that changes of size have cost."""
        self.resizes = 0
        self.reclaims_s: list[float] = []
        """How long each replica waited for a device that a gang gave up."""
        self._digest = hashlib.sha256()
        self._log = RecordedEngine()
        self._created = 0
        self._pending: list[WorkloadId] = []
        self._ready_at: dict[WorkloadId, float] = {}
        self._sizes: dict[WorkloadId, float] = {}
        """Gang -> its devices."""
        gangs = tuple(_gang(sharing.training, number) for number in range(sharing.gangs))
        first = ClusterDelta(
            at=-BEFORE_S,
            is_reset=True,
            nodes=tuple(nodes),
            policy=SchedulingPolicy(preempts=True, elastic=True, grows_by_gain=True),
            arrived=(*(self._new_replica(-BEFORE_S) for _ in range(replicas)), *gangs),
        )
        self._decide(first)
        for number in range(PASSES):
            self._decide(ClusterDelta(at=-BEFORE_S * (1 - (number + 1) / (PASSES + 1))))
        self.resizes, self.lost_s = 0, 0.0
        self.reclaims_s.clear()

    @property
    def training_devices(self) -> float:
        """Devices that gangs hold now."""
        return sum(self._sizes.values())

    @property
    def count(self) -> int:
        """Replicas that are there or on their way."""
        return len(self.replicas) + len(self._pending)

    def ready(self, at: float) -> int:
        """Replicas that serve."""
        return sum(self._ready_at[one] <= at for one in self.replicas)

    def advance(self, at: float, count: int) -> None:
        """Bring the replicas to a number, as far as the pool allows, and let gangs grow."""
        arrived = [self._new_replica(at) for _ in range(max(0, count - self.count))]
        ended: list[WorkloadId] = []
        while self.count > count and self.replicas:
            ended.append(self.replicas.pop())
            del self._ready_at[ended[-1]]
        self._decide(ClusterDelta(at=at, ended=tuple(ended), arrived=tuple(arrived)))

    def digest(self) -> str:
        """SHA-256 of all decisions, line by line."""
        return self._digest.hexdigest()

    def _decide(self, delta: ClusterDelta) -> None:
        made = self._log.advance(delta)
        robbed = {act.by for act in made if isinstance(act, Resize)}
        for act in made:
            self._digest.update(f"{format_decision(delta.at, act)}\n".encode())
        for ident in dict.fromkeys(act.id for act in made if isinstance(act, Resize)):
            self._resized(ident)
        for act in made:
            self._carry_out(act, delta.at, is_reclaim=act.id in robbed)

    def _resized(self, gang: WorkloadId) -> None:
        self._sizes[gang] = devices_of(self._log.engine.cluster.running[gang].workers)
        self.resizes += 1
        self.lost_s += RESIZE_S * self._sizes[gang]

    def _carry_out(self, action: Action, at: float, *, is_reclaim: bool) -> None:
        if not isinstance(action, Start):
            return
        if action.id in self._pending:
            self._pending.remove(action.id)
            self.replicas.append(action.id)
            wait_s = 0.0
            if is_reclaim:
                step_s = self.sharing.step_s
                wait_s = math.ceil(at / step_s + 1e-9) * step_s - at + LEAVE_S
                self.reclaims_s.append(wait_s)
            self._ready_at[action.id] = at + wait_s + self.sharing.start_s
        else:
            self._sizes[action.id] = devices_of(action.grants)

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


def _gang(gang: GangSpec, number: int) -> PendingWorkload:
    return PendingWorkload(
        id=WorkloadId(f"training-{number}"),
        project="training",
        gang=gang,
        priority=TRAINING_PRIORITY,
        since=-BEFORE_S,
        order=number,
        preemptible=False,
    )
