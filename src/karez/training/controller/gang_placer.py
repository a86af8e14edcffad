"""Changes the grants of a running gang: nodes for lost ranks, and another number of workers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from karez.core.gangs import SPARE
from karez.core.grants import Grant
from karez.node_events.stream import NodeEventStream
from karez.training.controller.gang_executor import GangExecutor
from karez.training.controller.generation_starter import GenerationStarter
from karez.training.controller.launch_context import replica_servers_of
from karez.training.recovery.commands import FindPlaces
from karez.training.recovery.events import PlacesFound, Shrunk
from karez.training.recovery.state import Gang


@dataclass(slots=True, kw_only=True)
class GangPlacer:
    """Places one gang's ranks on other nodes under the job's lease."""

    executor: GangExecutor
    starter: GenerationStarter
    events: NodeEventStream
    token: str

    def find_places(self, gang: Gang, command: FindPlaces) -> PlacesFound | Shrunk | None:
        """Place lost ranks by the first rung that works. None: another control owns the job."""
        indices, workers = command.ranks, self.executor.allocation.workers
        remaining = {n: workers[n] for n, _ in gang.active if n not in indices}
        homes = {index: gang.ranks[index].home for index in indices}
        for rung in command.rungs:
            if rung == "replace" and (grants := self._find_elsewhere(indices)):
                return self._replace(remaining, grants)
            if rung == "in-place" and all(homes.values()):
                return PlacesFound(nodes=homes, rung=rung)
            if rung == "shrink" and len(remaining) >= self.executor.job.spec.gang.min:
                return self._shrink(remaining)
            if rung == "restart":
                break
        return PlacesFound(nodes={})

    def regrant(self, grants: Mapping[int, Grant]) -> bool:
        """Hold these grants for the workers. False: another control owns the job."""
        executor = self.executor
        allocation = executor.allocation
        epoch = executor.deps.store.workloads.regrant(
            executor.job.id,
            self.token,
            [*grants.values(), *allocation.others],
            now=executor.deps.clock.now(),
        )
        if epoch is None:
            return False
        allocation.former_nodes |= allocation.nodes
        allocation.workers = {**allocation.workers, **grants}
        executor.context = replace(executor.context, epoch=epoch)
        return True

    def follow(self, grants: Iterable[Grant]) -> None:
        """Make the nodes of these grants part of the gang."""
        self.starter.renew()
        executor = self.executor
        nodes = executor.allocation.nodes | executor.allocation.former_nodes
        servers = replica_servers_of(nodes, executor.deps)
        executor.context = replace(executor.context, replica_servers=servers)
        for grant in grants:
            self.events.follow(grant.node)

    def _replace(
        self, remaining: Mapping[int, Grant], grants: Mapping[int, Grant]
    ) -> PlacesFound | None:
        if not self.regrant({**remaining, **grants}):
            return None
        self.follow(grants.values())
        return PlacesFound(nodes={index: grant.node for index, grant in grants.items()})

    def _shrink(self, remaining: Mapping[int, Grant]) -> Shrunk | None:
        if not self.regrant(remaining):
            return None
        self.follow(())
        return Shrunk(keep=tuple(remaining))

    def _find_elsewhere(self, indices: tuple[int, ...]) -> Mapping[int, Grant]:
        """Other devices for lost ranks, spares first; empty if there are not enough."""
        allocation, gang = self.executor.allocation, self.executor.job.spec.gang
        avoid = frozenset(allocation.workers[index].node for index in indices)
        need = allocation.workers[indices[0]].need_among(gang.each)
        spares = allocation.take_spares(len(indices), avoid)
        missing = len(indices) - len(spares)
        free = self.executor.deps.find(need, missing, avoid, gang.among) if missing else ()
        grants = (*spares, *free)
        if len(grants) < len(indices):
            allocation.others += [replace(grant, role=SPARE) for grant in spares]
            return {}
        return dict(zip(indices, grants, strict=True))
