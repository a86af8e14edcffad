"""Who of a gang holds what: the workers' seats, its spares, and what its roles hold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from karez.core.gangs import SPARE
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.processes import ProcessInfo
from karez.training.controller.process_specs import parse_key


@dataclass(slots=True, kw_only=True)
class GangAllocation:
    """The grants of one gang. A seat keeps its number for good."""

    workers: dict[int, Grant]
    """Seat -> what its worker holds; seats that were given up stay listed."""
    others: list[Grant] = field(default_factory=list)
    """What spares and roles hold."""

    @property
    def nodes(self) -> set[NodeId]:
        """All nodes that anything of it stands on."""
        return {grant.node for grant in (*self.workers.values(), *self.others)}

    def of_role(self, role: str) -> list[Grant]:
        """What a role holds, in order."""
        return [grant for grant in self.others if grant.role == role]

    def drop_node(self, node: NodeId) -> set[str]:
        """Nothing of it stands on a node any more but ranks; the roles that lost a worker."""
        roles = {grant.role for grant in self.others if grant.node == node} - {SPARE}
        self.others = [grant for grant in self.others if grant.node != node]
        return roles

    def take_spares(self, count: int, off: frozenset[NodeId]) -> list[Grant]:
        """Spare places that are not on these nodes, as workers' grants; they are spares no more."""
        found = [g for g in self.of_role(SPARE) if g.node not in off][:count]
        for grant in found:
            self.others.remove(grant)
        return [as_worker(grant) for grant in found]


def as_worker(grant: Grant) -> Grant:
    """A spare's grant in a worker's hands."""
    return Grant(
        node=grant.node,
        kind=grant.kind,
        devices=grant.devices,
        memory_bytes=grant.memory_bytes,
        cores=grant.cores,
        dpu_milli=grant.dpu_milli,
        storage_bytes=grant.storage_bytes,
    )


def allocation_from(grants: Sequence[Grant], processes: Iterable[ProcessInfo]) -> GangAllocation:
    """A crew from what is granted; seats that have a process already keep their numbers."""
    workers = [grant for grant in grants if not grant.role]
    taken: dict[int, Grant] = {}
    left = list(workers)
    newest = sorted(processes, key=lambda info: (info.alive, info.epoch), reverse=True)
    for info in newest:
        named = parse_key(info.key)
        if named is not None and info.grant in left and named[0] not in taken:
            taken[named[0]] = info.grant
            left.remove(info.grant)
    free = (
        index for index in range(len(workers) + max(taken, default=0) + 1) if index not in taken
    )
    taken.update(zip(free, left, strict=False))
    return GangAllocation(
        workers={index: taken[index] for index in sorted(taken)},
        others=[grant for grant in grants if grant.role],
    )
