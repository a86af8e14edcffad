"""What is on a node without being held there: left over from an epoch that passed. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from karez.core.nodes import NodeId
from karez.core.processes import ProcessInfo
from karez.core.workloads import Allocation, WorkloadId


@dataclass(slots=True, kw_only=True)
class OrphanCollector:
    """Remembers since when.

    What nobody runs any more, of a job that is at work elsewhere, stays for as long as a rank may
    take to start: one that was moved or has joined may still fetch its state from there.
    """

    start_s: float
    _since: dict[tuple[NodeId, WorkloadId], float] = field(default_factory=dict)

    def overdue(
        self,
        node: NodeId,
        here: Iterable[ProcessInfo],
        held: Mapping[WorkloadId, Allocation],
        now: float,
    ) -> list[WorkloadId]:
        """Workloads to be ended and cleared there; at the second look at the earliest."""
        alive: dict[WorkloadId, bool] = {}
        for info in here:
            grants = held[info.workload].grants if info.workload in held else ()
            if all(grant.node != node for grant in grants):
                alive[info.workload] = alive.get(info.workload, False) or info.alive
        known = {key: at for key, at in self._since.items() if key[0] != node}
        known |= {(node, one): self._since.get((node, one), now) for one in alive}
        self._since = known
        return [
            one
            for one, runs in alive.items()
            if now - known[node, one] > (0.0 if runs or one not in held else self.start_s)
        ]
