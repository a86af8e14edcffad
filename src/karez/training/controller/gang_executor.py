"""What a foreman does on the nodes: starts, tells, kills, and holds devices for its gang."""

import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from karez.core.devices import DeviceKind
from karez.core.errors import KarezError
from karez.core.gangs import SPARE
from karez.core.grants import Grant
from karez.core.jobs import Job
from karez.core.nodes import NodeId, NodeState
from karez.core.ports import NodeLost
from karez.core.processes import Event, ProcessInfo, ProcessSpec
from karez.core.recovery import CheckpointPart
from karez.core.workloads import WorkloadKind
from karez.training.controller.gang_allocation import GangAllocation
from karez.training.controller.launch_context import need_of, replica_servers_of
from karez.training.controller.process_specs import (
    LaunchContext,
    parse_key,
    rank_key,
    rank_spec,
    store_spec,
)
from karez.training.controller.status_writer import ControllerDeps
from karez.training.recovery.commands import (
    DropReplicas,
    QueryShards,
    StartGeneration,
    StartRank,
)
from karez.training.recovery.state import Gang, Phase


@dataclass(slots=True, kw_only=True)
class GangExecutor:
    """One gang's. A node that does not answer is noticed by its poller, not here."""

    job: Job
    token: str
    deps: ControllerDeps
    allocation: GangAllocation
    context: LaunchContext
    _store: tuple[NodeId, str, str] = (NodeId(""), "", "")
    """The rendezvous store: its node, its process's key, where it listens."""
    _pending: StartGeneration | None = None
    _keepers: dict[NodeId, str] = field(default_factory=dict)
    _savers: list[threading.Thread] = field(default_factory=list)
    _left: set[NodeId] = field(default_factory=set)
    """Nodes that it stood on before."""

    def on_node(self, node: NodeId, act: Callable[[NodeId], None]) -> None:
        """Act on a node."""
        if not node:
            return
        try:
            act(node)
        except NodeLost:
            return

    def start(self, node: NodeId, spec: ProcessSpec) -> None:
        """Start a process."""
        self.on_node(node, lambda node: self.deps.fabric.start(node, spec))

    def send(self, gang: Gang, index: int, message: Mapping[str, Any]) -> None:
        """Send a rank a message."""
        rank = gang.ranks[index]
        key = rank_key(self.job.id, index, rank.attempt)
        self.on_node(rank.node, lambda node: self.deps.fabric.send(node, key, message))

    def send_all(self, gang: Gang, message: Mapping[str, Any]) -> None:
        """Send all ranks a message."""
        for index, _ in gang.active:
            self.send(gang, index, message)

    def kill(self, node: NodeId, index: int, attempt: int, grace_s: float = 0.0) -> None:
        """End a rank's process."""
        key = rank_key(self.job.id, index, attempt)
        self.on_node(node, lambda node: self.deps.fabric.kill(node, key, grace_s=grace_s))

    def spawn(self, gang: Gang, command: StartRank) -> Grant:
        """Start a rank's process, with the newest stored checkpoint at hand; on what."""
        restore: dict[str, str] = {}
        indices = [index for index, _ in gang.active]
        kept = self.deps.store.history.newest_checkpoint(self.job.id, indices)
        for part in kept.get(command.rank, ()):
            is_base = part.whole and part.rank != command.rank
            whose = "whole" if is_base else str(part.rank)
            restore[f"step-{part.step}-{whose}.kz"] = part.digest
        grant = self.allocation.workers[command.rank]
        spec = rank_spec(self.context, command.rank, command.attempt, grant, restore=restore)
        self.start(command.node, spec)
        return grant

    def open_store(self, gang: Gang) -> None:
        """Start a rendezvous store where none is: generations share it, each with a prefix."""
        wanted = len(gang.active) > 1 and self.job.spec.kind == WorkloadKind.TRAIN
        homes = [rank.node for _, rank in gang.active if rank.node]
        if not wanted or not homes or self._store[0] in homes:
            return
        spec = store_spec(self.context, gang.generation, secrets.token_hex(3))
        self._store = (homes[0], spec.key, "")
        self.start(homes[0], spec)

    def on_store_event(self, event: Event, gang: Gang) -> None:
        """A rendezvous store says where it listens, or has ended."""
        node, key, _ = self._store
        if event.type == "store" and event.key == key:
            self._store = (node, key, str(event.data["address"]))
            if self._pending is not None:
                self.start_generation(gang, self._pending)
        elif event.type == "exit" and event.key == key:
            self._store = (NodeId(""), "", "")
            self.open_store(gang)

    def mark_node_lost(self, node: NodeId) -> None:
        """Nothing is placed on a node without a pulse until it answers again."""
        for known in self.deps.store.pool.nodes():
            if known.id == node and known.state == NodeState.READY:
                self.deps.store.pool.set_node(node, NodeState.LOST)

    def find_store(self) -> None:
        """Go on with the rendezvous store of the foreman before this one."""
        for node in self.allocation.nodes:
            with suppress(NodeLost):
                for info in self.deps.fabric.processes(node):
                    said = info.last_messages.get("store")
                    if said and info.alive and info.workload == self.job.id:
                        self._store = (node, info.key, str(said["address"]))

    def start_generation(self, gang: Gang, go: StartGeneration) -> None:
        """Tell every rank where it stands and whom it meets, once the store is there."""
        self._pending = None
        if go.generation != gang.generation:
            return
        active = gang.active
        _, _, store = self._store
        if len(active) > 1 and not store:
            self._pending = go  # until the store says where it is
            return
        fresh = [position for position, (index, _) in enumerate(active) if index in go.need_state]
        nodes = sorted({rank.node for _, rank in active})
        for position, (index, rank) in enumerate(active):
            message = {
                "type": "go",
                "generation": go.generation,
                "step": go.step,
                "rank": position,
                "world": len(active),
                "epoch": self.context.epoch,
                "store": store,
                "peers": self._peers(position, rank.node, nodes),
                "whole": len(nodes) == 1 or bool(self.context.memory),
                "alike": self._compute_alike(nodes),
                "skipped": list(go.skipped),
                "fresh": fresh,
                "pieces": list(go.shard_ranks),
                "born": go.created_generation,
                "keepers": self._all_keepers,
            }
            self.send(gang, index, message)

    def query_shards(self, gang: Gang, asked: QueryShards | DropReplicas) -> None:
        """Have a rank look for what others left behind, or have that forgotten."""
        message = {"seats": list(asked.departed), "keepers": self._all_keepers}
        if isinstance(asked, QueryShards):
            born = {"type": "seek", "generation": asked.generation}
            self.send(gang, asked.rank, {**message, **born})
        else:
            self.send(gang, gang.active[0][0], {**message, "type": "clear"})

    @property
    def _all_keepers(self) -> list[str]:
        return [*self.context.replica_servers, *(address for address, _ in self.context.memory)]

    def _peers(self, position: int, own: NodeId, nodes: Sequence[NodeId]) -> list[str]:
        """The keepers of a rank's snapshots: in memory held for that, else on the next nodes."""
        wanted = self.job.spec.peers
        held = [address for address, _ in self.context.memory]
        if held:
            return [held[(position + n) % len(held)] for n in range(min(wanted, len(held)))]
        at = nodes.index(own)
        others = [nodes[(at + n) % len(nodes)] for n in range(1, len(nodes))][:wanted]
        found: list[str] = []
        for node in others:
            with suppress(NodeLost):
                found.append(self._keeper(node))
        return found

    def _keeper(self, node: NodeId) -> str:
        if node not in self._keepers:
            self._keepers[node] = self.deps.fabric.replica_server(node)
        return self._keepers[node]

    def _compute_alike(self, nodes: Sequence[NodeId]) -> bool:
        """Whether all ranks compute the same bits: on devices of one model, or on one node."""
        if len(nodes) == 1:
            return True
        known = {node.id: node for node in self.deps.store.pool.nodes()}
        computing = (DeviceKind.CPU, DeviceKind.GPU, DeviceKind.NPU)
        models = {
            frozenset((d.kind, d.model) for d in known[node].devices if d.kind in computing)
            for node in nodes
            if node in known
        }
        kinds = {grant.kind for grant in self.allocation.workers.values()}
        return len(models) == 1 and len(kinds) == 1 and all(node in known for node in nodes)

    def find_elsewhere(self, indices: tuple[int, ...]) -> Mapping[int, Grant]:
        """Other devices for lost ranks, spares first; nothing if there are not enough."""
        gang = self.job.spec.gang
        lost = frozenset(self.allocation.workers[index].node for index in indices)
        need = need_of(self.allocation.workers[indices[0]], gang.each)
        spares = self.allocation.take_spares(len(indices), lost)
        more = len(indices) - len(spares)
        others = self.deps.find(need, more, lost, gang.among) if more else ()
        found = (*spares, *others)
        if len(found) < len(indices):
            self.allocation.others += [replace(grant, role=SPARE) for grant in spares]
            return {}
        return dict(zip(indices, found, strict=True))

    def wait_until_gone(self, indices: set[int], within_s: float) -> None:
        """Devices are given back only once nobody uses them."""
        deadline = self.deps.clock.now() + within_s
        pause = threading.Event()
        while self.deps.clock.now() < deadline and self.alive() & indices:
            pause.wait(0.05)

    def regrant(self, grants: Mapping[int, Grant]) -> bool:
        """Hold these for the workers from now on. False: another control owns the job."""
        epoch = self.deps.store.workloads.regrant(
            self.job.id,
            self.token,
            [*grants.values(), *self.allocation.others],
            now=self.deps.clock.now(),
        )
        if epoch is None:
            return False
        self._left |= self.allocation.nodes
        self.allocation.workers = {**self.allocation.workers, **grants}
        self.context = replace(self.context, epoch=epoch)
        return True

    def renew(self) -> None:
        """New places are part of the gang."""
        self._keepers.clear()
        self.context = replace(
            self.context,
            replica_servers=replica_servers_of(self.allocation.nodes | self._left, self.deps),
        )

    def save(self, index: int, said: Mapping[str, Any]) -> None:
        """Keep a part of a checkpoint, off the foreman's thread; it counts once it is read back."""
        node = self.allocation.workers[index].node
        part = CheckpointPart(
            step=int(said["step"]),
            rank=index,
            digest="",
            world=int(said["world"]),
            whole=bool(said["whole"]),
        )

        def keep() -> None:
            with suppress(NodeLost, KarezError, OSError):  # the next checkpoint may do better
                entry = self.deps.fabric.save(node, str(said["path"]))
                with self.deps.blobs.open(entry.sha256) as file:
                    again = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # a BinaryIO
                if again == entry.sha256:
                    whole = replace(part, digest=again)
                    self.deps.store.history.add_checkpoint(self.job.id, whole)

        saver = threading.Thread(target=keep, daemon=True)
        self._savers = [*(old for old in self._savers if old.is_alive()), saver]
        saver.start()

    def saved(self, *, within_s: float) -> None:
        """Wait for checkpoints under way."""
        for saver in self._savers:
            saver.join(within_s)

    def processes(self) -> list[ProcessInfo]:
        """All that its nodes know of, of this epoch and those before."""
        found: list[ProcessInfo] = []
        for node in self.allocation.nodes:
            try:
                found += self.deps.fabric.processes(node)
            except NodeLost:
                continue
        return [i for i in found if i.workload == self.job.id and i.epoch <= self.context.epoch]

    def alive(self) -> set[int]:
        """Seats whose process lives."""
        named = (parse_key(info.key) for info in self.processes() if info.alive)
        return {index for index, _ in filter(None, named)}

    def vanished(self, gang: Gang, now: float) -> list[tuple[int, int]]:
        """(seat, life) of ranks that are waited for and that their nodes know nothing of.

        A node may start anew between the moment at which a foreman takes over and its first look at
        that node: then no exit is ever reported.
        """
        if gang.phase != Phase.QUIESCING or now - gang.since < gang.limits.quiesce_s / 2:
            return []
        awaited = [(n, rank) for n, rank in gang.active if rank.alive and not rank.quiesced]
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
        """Clear all its nodes of it, also those that it has left."""
        for node in self.allocation.nodes | self._left:
            self.on_node(node, lambda node: self.deps.fabric.purge(node, self.job.id))
