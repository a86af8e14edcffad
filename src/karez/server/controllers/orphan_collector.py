"""Finds orphans: processes and memory on a node that no current allocation covers. No I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from karez.core.nodes import NodeId
from karez.core.processes import ProcessInfo
from karez.core.workloads import Allocation, WorkloadId


@dataclass(slots=True, kw_only=True)
class OrphanCollector:
    """Remembers since when each workload has been an orphan on each node.

    Ended processes of a job that runs elsewhere are kept for as long as a rank may take to start:
    a rank that was moved or has joined may still fetch its state from there.
    """

    start_s: float
    _since: dict[tuple[NodeId, WorkloadId], float] = field(default_factory=dict)

    def overdue(
        self,
        node: NodeId,
        processes: Iterable[ProcessInfo],
        allocations: Mapping[WorkloadId, Allocation],
        now: float,
    ) -> list[WorkloadId]:
        """Workloads to purge from a node: orphans since an earlier call at least."""
        has_process: dict[WorkloadId, bool] = {}
        """Orphan -> whether one of its processes is alive."""
        for info in processes:
            ident = info.workload
            grants = allocations[ident].grants if ident in allocations else ()
            if all(grant.node != node for grant in grants):
                has_process[ident] = has_process.get(ident, False) or info.alive
        since = {key: at for key, at in self._since.items() if key[0] != node}
        since |= {(node, ident): self._since.get((node, ident), now) for ident in has_process}
        self._since = since
        return [
            ident
            for ident, runs in has_process.items()
            if now - since[node, ident]
            > (0.0 if runs or ident not in allocations else self.start_s)
        ]
