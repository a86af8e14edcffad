"""The grants of a gang: of its workers, its spares and its roles."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from karez.core.gangs import SPARE
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.processes import ProcessInfo
from karez.training.controller.process_specs import parse_key


@dataclass(slots=True, kw_only=True)
class GangAllocation:
    """The grants of one gang. A rank keeps its number for good."""

    workers: dict[int, Grant]
    """Rank -> grant of its worker; ranks that have left stay listed."""
    others: list[Grant] = field(default_factory=list)
    """Grants of spares and roles."""
    former_nodes: set[NodeId] = field(default_factory=set)
    """Nodes that the gang ran on before its grants changed."""

    @property
    def nodes(self) -> set[NodeId]:
        """All nodes on which the gang has a grant."""
        return {grant.node for grant in (*self.workers.values(), *self.others)}

    @property
    def is_emulated(self) -> bool:
        """Whether the gang's workers hold emulated devices."""
        return any(grant.is_emulated for grant in self.workers.values())

    def of_role(self, role: str) -> list[Grant]:
        """The grants of a role, in order."""
        return [grant for grant in self.others if grant.role == role]

    def drop_node(self, node: NodeId) -> set[str]:
        """Drop the spares and role workers on a lost node. Returns the affected roles."""
        roles = {grant.role for grant in self.others if grant.node == node} - {SPARE}
        self.others = [grant for grant in self.others if grant.node != node]
        return roles

    def take_spares(self, count: int, avoid: frozenset[NodeId]) -> list[Grant]:
        """Turn up to `count` spares on other nodes than these into workers' grants."""
        spares = [g for g in self.of_role(SPARE) if g.node not in avoid][:count]
        for grant in spares:
            self.others.remove(grant)
        return [as_worker(grant) for grant in spares]


def as_worker(grant: Grant) -> Grant:
    """A spare's grant as a worker's grant."""
    return replace(grant, role="")


def allocation_from(grants: Sequence[Grant], processes: Iterable[ProcessInfo]) -> GangAllocation:
    """The allocation of these grants; ranks that have a process already keep their numbers."""
    workers = [grant for grant in grants if not grant.role]
    by_rank: dict[int, Grant] = {}
    unassigned = list(workers)
    newest = sorted(processes, key=lambda info: (info.alive, info.epoch), reverse=True)
    for info in newest:
        key = parse_key(info.key)
        if key is not None and info.grant in unassigned and key[0] not in by_rank:
            by_rank[key[0]] = info.grant
            unassigned.remove(info.grant)
    free = (
        index for index in range(len(workers) + max(by_rank, default=0) + 1) if index not in by_rank
    )
    by_rank.update(zip(free, unassigned, strict=False))
    return GangAllocation(
        workers={index: by_rank[index] for index in sorted(by_rank)},
        others=[grant for grant in grants if grant.role],
    )
