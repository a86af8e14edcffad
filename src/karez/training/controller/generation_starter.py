"""Sends every rank of a gang the message that starts a generation."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from karez.core.devices import DeviceKind
from karez.core.messages.orders import (
    DropReplicasOrder,
    QueryShardsOrder,
    StartGenerationOrder,
)
from karez.core.messages.reports import Report
from karez.core.nodes import NodeId
from karez.core.ports import NodeLost
from karez.training.controller.gang_executor import GangExecutor
from karez.training.controller.rendezvous import Rendezvous
from karez.training.recovery.commands import DropReplicas, QueryShards, StartGeneration
from karez.training.recovery.state import Gang

COMPUTING = (DeviceKind.CPU, DeviceKind.GPU, DeviceKind.NPU)
"""Kinds of devices that ranks compute on."""


@dataclass(slots=True, kw_only=True)
class GenerationStarter:
    """Starts one gang's generations and finds shards for them."""

    executor: GangExecutor
    rendezvous: Rendezvous
    _pending: StartGeneration | None = None
    """A generation that waits for the address of the rendezvous store."""
    _replica_servers: dict[NodeId, str] = field(default_factory=dict)

    def start(self, gang: Gang, command: StartGeneration) -> None:
        """Tell every rank its position and its peers, once the rendezvous store has an address."""
        self._pending = None
        if command.generation != gang.generation:
            return
        if len(gang.active) > 1 and not self.rendezvous.address:
            self._pending = command
            return
        common = self._common(gang, command)
        nodes = sorted({rank.node for _, rank in gang.active})
        for position, (index, rank) in enumerate(gang.active):
            peers = tuple(self._peers(position, rank.node, nodes))
            self.executor.send(gang, index, replace(common, rank=position, peers=peers))

    def on_report(self, key: str, report: Report, gang: Gang) -> None:
        """Pass a report to the rendezvous store; a waiting generation starts with its address."""
        if self.rendezvous.on_report(key, report, gang) and self._pending is not None:
            self.start(gang, self._pending)

    def query_shards(self, gang: Gang, command: QueryShards | DropReplicas) -> None:
        """Have a rank look for the shards of departed ranks, or have these deleted."""
        departed, servers = command.departed, self._all_replica_servers
        if isinstance(command, QueryShards):
            query = QueryShardsOrder(
                generation=command.generation, departed=departed, replica_servers=servers
            )
            self.executor.send(gang, command.rank, query)
        else:
            drop = DropReplicasOrder(departed=departed, replica_servers=servers)
            self.executor.send(gang, gang.active[0][0], drop)

    def renew(self) -> None:
        """Look up the replica servers again: the gang's nodes have changed."""
        self._replica_servers.clear()

    def _common(self, gang: Gang, command: StartGeneration) -> StartGenerationOrder:
        """The order of the first rank; all but its position and peers is the same for all."""
        context = self.executor.context
        nodes = sorted({rank.node for _, rank in gang.active})
        positions = enumerate(gang.active)
        return StartGenerationOrder(
            generation=command.generation,
            step=command.step,
            rank=0,
            world=len(gang.active),
            epoch=context.epoch,
            rendezvous=self.rendezvous.address,
            ship_whole=len(nodes) == 1 or bool(context.memory),
            compares_replicas=self._compute_alike(nodes),
            skipped_batches=command.skipped,
            need_state=tuple(n for n, (rank, _) in positions if rank in command.need_state),
            shard_ranks=command.shard_ranks,
            created_generation=command.created_generation,
            replica_servers=self._all_replica_servers,
        )

    @property
    def _all_replica_servers(self) -> tuple[str, ...]:
        context = self.executor.context
        return (*context.replica_servers, *(address for address, _ in context.memory))

    def _peers(self, position: int, own: NodeId, nodes: Sequence[NodeId]) -> list[str]:
        """Replica servers for a rank's snapshots: in memory of the gang, else on the next nodes."""
        count = self.executor.job.spec.peers
        memory = [address for address, _ in self.executor.context.memory]
        if memory:
            return [memory[(position + n) % len(memory)] for n in range(min(count, len(memory)))]
        at = nodes.index(own)
        peers: list[str] = []
        for node in [nodes[(at + n) % len(nodes)] for n in range(1, len(nodes))][:count]:
            with suppress(NodeLost):
                peers.append(self._replica_server(node))
        return peers

    def _replica_server(self, node: NodeId) -> str:
        if node not in self._replica_servers:
            self._replica_servers[node] = self.executor.deps.fabric.replica_server(node)
        return self._replica_servers[node]

    def _compute_alike(self, nodes: Sequence[NodeId]) -> bool:
        """Whether all ranks compute the same bits: on devices of one model, or on one node."""
        if len(nodes) == 1:
            return True
        pool = {node.id: node for node in self.executor.deps.store.pool.nodes(nodes)}
        models = {
            frozenset((d.kind, d.model) for d in pool[node].devices if d.kind in COMPUTING)
            for node in nodes
            if node in pool
        }
        kinds = {grant.kind for grant in self.executor.allocation.workers.values()}
        return len(models) == 1 and len(kinds) == 1 and all(node in pool for node in nodes)
