"""Starts, messages and kills the processes of one gang on its nodes."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from karez.core.grants import Grant
from karez.core.jobs import Job
from karez.core.messages.orders import Order
from karez.core.messages.wire import encode
from karez.core.nodes import NodeId
from karez.core.ports import Fabric, NodeLost
from karez.core.processes import ProcessInfo, ProcessSpec
from karez.core.workloads import WorkloadId
from karez.training.controller.checkpoint_artifact import stored_checkpoints
from karez.training.controller.controller_deps import ControllerDeps
from karez.training.controller.gang_allocation import GangAllocation
from karez.training.controller.process_specs import LaunchContext, parse_key, rank_key, rank_spec
from karez.training.recovery.commands import StartRank
from karez.training.recovery.state import Gang, Phase, RankPhase


@dataclass(slots=True, kw_only=True)
class GangExecutor:
    """Executes one gang's commands on its nodes.

    A node that does not answer is skipped: NodeEventStream reports the loss.
    """

    job: Job
    deps: ControllerDeps
    allocation: GangAllocation
    context: LaunchContext

    def on_node(self, node: NodeId, act: Callable[[NodeId], None]) -> None:
        """Act on a node; no node, or a node that does not answer, is skipped."""
        if not node:
            return
        with suppress(NodeLost):
            act(node)

    def start(self, node: NodeId, spec: ProcessSpec) -> None:
        """Start a process."""
        self.on_node(node, lambda node: self.deps.fabric.start(node, spec))

    def send(self, gang: Gang, index: int, order: Order) -> None:
        """Send a rank an order."""
        rank = gang.ranks[index]
        self.send_to(rank.node, rank_key(self.job.id, index, rank.attempt), order)

    def send_to(self, node: NodeId, key: str, order: Order) -> None:
        """Send any process of the gang an order."""
        message = encode(order)
        self.on_node(node, lambda node: self.deps.fabric.send(node, key, message))

    def send_all(self, gang: Gang, order: Order) -> None:
        """Send all ranks an order."""
        for index, _ in gang.active:
            self.send(gang, index, order)

    def kill(self, node: NodeId, index: int, attempt: int, grace_s: float = 0.0) -> None:
        """End a rank's process."""
        key = rank_key(self.job.id, index, attempt)
        self.on_node(node, lambda node: self.deps.fabric.kill(node, key, grace_s=grace_s))

    def spawn(self, gang: Gang, command: StartRank) -> Grant:
        """Start a rank's process with the newest stored checkpoints; returns the rank's grant."""
        restore: dict[str, str] = {}
        indices = [index for index, _ in gang.active]
        checkpoint = self.deps.store.history.newest_checkpoint(self.job.id, indices)
        for part in checkpoint.get(command.rank, ()):
            is_base = part.whole and part.rank != command.rank
            owner = "whole" if is_base else str(part.rank)
            restore[f"step-{part.step}-{owner}.kz"] = part.digest
        grant = self.allocation.workers[command.rank]
        context = replace(self.context, checkpoints=stored_checkpoints(self.job, self.deps))
        spec = rank_spec(context, command.rank, command.attempt, grant, restore=restore)
        self.start(command.node, spec)
        return grant

    def wait_until_gone(self, indices: set[int], within_s: float) -> None:
        """Wait until no process of these ranks uses its devices, so that they can be released."""
        deadline = self.deps.clock.now() + within_s
        while self.deps.clock.now() < deadline and self.alive() & indices:
            self.deps.clock.pause(0.05)

    def processes(self) -> list[ProcessInfo]:
        """All processes of the gang on its nodes, of this epoch and of earlier ones."""
        nodes, epoch = self.allocation.nodes, self.context.epoch
        return find_processes(self.deps.fabric, nodes, self.job.id, epoch)

    def alive(self) -> set[int]:
        """Ranks whose process is alive."""
        keys = (parse_key(info.key) for info in self.processes() if info.alive)
        return {index for index, _ in filter(None, keys)}

    def vanished(self, gang: Gang, now: float) -> list[tuple[int, int]]:
        """(rank, attempt) of awaited ranks whose process is unknown to its node.

        A node may restart between the moment at which a controller takes over and its first poll of
        that node: then no exit is ever reported.
        """
        if gang.phase != Phase.QUIESCING or now - gang.since < gang.limits.quiesce_s / 2:
            return []
        awaited = [
            (n, rank)
            for n, rank in gang.active
            if rank.is_alive and rank.phase != RankPhase.QUIESCED
        ]
        known: dict[NodeId, set[str]] = {}
        for node in {rank.node for _, rank in awaited}:
            with suppress(NodeLost):
                known[node] = {info.key for info in self.deps.fabric.processes(node)}
        return [
            (index, rank.attempt)
            for index, rank in awaited
            if rank.node in known
            and rank_key(self.job.id, index, rank.attempt) not in known[rank.node]
        ]

    def collect(self, gang: Gang) -> list[tuple[str, Any]]:
        """The outputs of the first rank. Raises NodeLost."""
        index, rank = gang.active[0]
        return list(self.deps.fabric.collect(rank.node, rank_key(self.job.id, index, rank.attempt)))

    def purge(self) -> None:
        """Remove all processes and files of the gang from its present and former nodes."""
        for node in self.allocation.nodes | self.allocation.former_nodes:
            self.on_node(node, lambda node: self.deps.fabric.purge(node, self.job.id))


def find_processes(
    fabric: Fabric, nodes: Iterable[NodeId], workload: WorkloadId, epoch: int
) -> list[ProcessInfo]:
    """All processes of a workload on these nodes, of this epoch and of earlier ones."""
    infos: list[ProcessInfo] = []
    for node in nodes:
        with suppress(NodeLost):
            infos += fabric.processes(node)
    return [info for info in infos if info.workload == workload and info.epoch <= epoch]
