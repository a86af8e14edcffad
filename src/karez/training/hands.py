"""What a foreman does on the nodes: starts, tells, kills, and holds devices for its gang."""

import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from karez.core.errors import KarezError
from karez.core.ports import Event, NodeLost, ProcessInfo, ProcessSpec
from karez.core.recovery import Part
from karez.core.resources import DeviceKind, Grant, NodeId, NodeState
from karez.core.workloads import SPARE, Job, WorkloadKind
from karez.training import gang as words
from karez.training.crew import Crew
from karez.training.kit import keepers_of, need_of
from karez.training.launch import Kit, parse_key, rank_key, rank_spec, store_spec
from karez.training.record import Tools


@dataclass(slots=True, kw_only=True)
class Hands:
    """One gang's. A node that does not answer is noticed by its poller, not here."""

    job: Job
    token: str
    tools: Tools
    crew: Crew
    kit: Kit
    _store: tuple[NodeId, str, str] = (NodeId(""), "", "")
    """The rendezvous store: its node, its process's key, where it listens."""
    _pending: words.Go | None = None
    _keepers: dict[NodeId, str] = field(default_factory=dict)
    _savers: list[threading.Thread] = field(default_factory=list)
    _left: set[NodeId] = field(default_factory=set)
    """Nodes that it stood on before."""

    def on(self, node: NodeId, act: Callable[[NodeId], None]) -> None:
        """Act on a node."""
        if not node:
            return
        try:
            act(node)
        except NodeLost:
            return

    def start(self, node: NodeId, spec: ProcessSpec) -> None:
        """Start a process."""
        self.on(node, lambda node: self.tools.fabric.start(node, spec))

    def tell(self, gang: words.Gang, seat: int, message: Mapping[str, Any]) -> None:
        """Send a rank a message."""
        rank = gang.ranks[seat]
        key = rank_key(self.job.id, seat, rank.life)
        self.on(rank.node, lambda node: self.tools.fabric.tell(node, key, message))

    def tell_all(self, gang: words.Gang, message: Mapping[str, Any]) -> None:
        """Send all ranks a message."""
        for seat, _ in gang.active:
            self.tell(gang, seat, message)

    def kill(self, node: NodeId, seat: int, life: int, grace_s: float = 0.0) -> None:
        """End a rank's process."""
        key = rank_key(self.job.id, seat, life)
        self.on(node, lambda node: self.tools.fabric.kill(node, key, grace_s=grace_s))

    def spawn(self, gang: words.Gang, command: words.Spawn) -> Grant:
        """Start a rank's process, with the newest stored checkpoint at hand; on what."""
        restore: dict[str, str] = {}
        seats = [seat for seat, _ in gang.active]
        kept = self.tools.store.history.newest_checkpoint(self.job.id, seats)
        for part in kept.get(command.rank, ()):
            is_base = part.whole and part.rank != command.rank
            whose = "whole" if is_base else str(part.rank)
            restore[f"step-{part.step}-{whose}.kz"] = part.digest
        grant = self.crew.seats[command.rank]
        spec = rank_spec(self.kit, command.rank, command.life, grant, restore=restore)
        self.start(command.node, spec)
        return grant

    def open_store(self, gang: words.Gang) -> None:
        """Start a rendezvous store where none is: generations share it, each with a prefix."""
        wanted = len(gang.active) > 1 and self.job.spec.kind == WorkloadKind.TRAIN
        homes = [rank.node for _, rank in gang.active if rank.node]
        if not wanted or not homes or self._store[0] in homes:
            return
        spec = store_spec(self.kit, gang.generation, secrets.token_hex(3))
        self._store = (homes[0], spec.key, "")
        self.start(homes[0], spec)

    def hear_store(self, event: Event, gang: words.Gang) -> None:
        """A rendezvous store says where it listens, or has ended."""
        node, key, _ = self._store
        if event.type == "store" and event.key == key:
            self._store = (node, key, str(event.data["address"]))
            if self._pending is not None:
                self.go(gang, self._pending)
        elif event.type == "exit" and event.key == key:
            self._store = (NodeId(""), "", "")
            self.open_store(gang)

    def note_lost(self, node: NodeId) -> None:
        """Nothing is placed on a node without a pulse until it answers again."""
        for known in self.tools.store.pool.nodes():
            if known.id == node and known.state == NodeState.READY:
                self.tools.store.pool.set_node(node, NodeState.LOST)

    def find_store(self) -> None:
        """Go on with the rendezvous store of the foreman before this one."""
        for node in self.crew.nodes:
            with suppress(NodeLost):
                for info in self.tools.fabric.processes(node):
                    said = info.said.get("store")
                    if said and info.alive and info.workload == self.job.id:
                        self._store = (node, info.key, str(said["address"]))

    def go(self, gang: words.Gang, go: words.Go) -> None:
        """Tell every rank where it stands and whom it meets, once the store is there."""
        self._pending = None
        if go.generation != gang.generation:
            return
        active = gang.active
        _, _, store = self._store
        if len(active) > 1 and not store:
            self._pending = go  # until the store says where it is
            return
        fresh = [number for number, (seat, _) in enumerate(active) if seat in go.fresh]
        nodes = sorted({rank.node for _, rank in active})
        for number, (seat, rank) in enumerate(active):
            message = {
                "type": "go",
                "generation": go.generation,
                "step": go.step,
                "rank": number,
                "world": len(active),
                "epoch": self.kit.epoch,
                "store": store,
                "peers": self._peers(number, rank.node, nodes),
                "whole": len(nodes) == 1 or bool(self.kit.memory),
                "alike": self._are_alike(nodes),
                "skipped": list(go.skipped),
                "fresh": fresh,
                "pieces": list(go.pieces),
                "born": go.born,
                "keepers": self._all_keepers,
            }
            self.tell(gang, seat, message)

    def ask(self, gang: words.Gang, asked: words.Seek | words.Clear) -> None:
        """Have a rank look for what others left behind, or have that forgotten."""
        message = {"seats": list(asked.seats), "keepers": self._all_keepers}
        if isinstance(asked, words.Seek):
            born = {"type": "seek", "generation": asked.generation}
            self.tell(gang, asked.rank, {**message, **born})
        else:
            self.tell(gang, gang.active[0][0], {**message, "type": "clear"})

    @property
    def _all_keepers(self) -> list[str]:
        return [*self.kit.keepers, *(address for address, _ in self.kit.memory)]

    def _peers(self, number: int, own: NodeId, nodes: Sequence[NodeId]) -> list[str]:
        """The keepers of a rank's snapshots: in memory held for that, else on the next nodes."""
        wanted = self.job.spec.peers
        held = [address for address, _ in self.kit.memory]
        if held:
            return [held[(number + n) % len(held)] for n in range(min(wanted, len(held)))]
        at = nodes.index(own)
        others = [nodes[(at + n) % len(nodes)] for n in range(1, len(nodes))][:wanted]
        found: list[str] = []
        for node in others:
            with suppress(NodeLost):
                found.append(self._keeper(node))
        return found

    def _keeper(self, node: NodeId) -> str:
        if node not in self._keepers:
            self._keepers[node] = self.tools.fabric.keeper(node)
        return self._keepers[node]

    def _are_alike(self, nodes: Sequence[NodeId]) -> bool:
        """Whether all ranks compute the same bits: on devices of one model, or on one node."""
        if len(nodes) == 1:
            return True
        known = {node.id: node for node in self.tools.store.pool.nodes()}
        computing = (DeviceKind.CPU, DeviceKind.GPU, DeviceKind.NPU)
        models = {
            frozenset((d.kind, d.model) for d in known[node].devices if d.kind in computing)
            for node in nodes
            if node in known
        }
        kinds = {grant.kind for grant in self.crew.seats.values()}
        return len(models) == 1 and len(kinds) == 1 and all(node in known for node in nodes)

    def elsewhere(self, seats: tuple[int, ...]) -> Mapping[int, Grant]:
        """Other devices for lost ranks, spares first; nothing if there are not enough."""
        gang = self.job.spec.gang
        lost = frozenset(self.crew.seats[seat].node for seat in seats)
        need = need_of(self.crew.seats[seats[0]], gang.each)
        spares = self.crew.take_spares(len(seats), lost)
        more = len(seats) - len(spares)
        others = self.tools.find(need, more, lost, gang.among) if more else ()
        found = (*spares, *others)
        if len(found) < len(seats):
            self.crew.others += [replace(grant, role=SPARE) for grant in spares]
            return {}
        return dict(zip(seats, found, strict=True))

    def wait_until_gone(self, seats: set[int], within_s: float) -> None:
        """Devices are given back only once nobody uses them."""
        deadline = self.tools.clock.now() + within_s
        pause = threading.Event()
        while self.tools.clock.now() < deadline and self.alive() & seats:
            pause.wait(0.05)

    def regrant(self, grants: Mapping[int, Grant]) -> bool:
        """Hold these for the workers from now on. False: another control owns the job."""
        epoch = self.tools.store.workloads.regrant(
            self.job.id,
            self.token,
            [*grants.values(), *self.crew.others],
            now=self.tools.clock.now(),
        )
        if epoch is None:
            return False
        self._left |= self.crew.nodes
        self.crew.seats = {**self.crew.seats, **grants}
        self.kit = replace(self.kit, epoch=epoch)
        return True

    def renew(self) -> None:
        """New places are part of the gang."""
        self._keepers.clear()
        self.kit = replace(self.kit, keepers=keepers_of(self.crew.nodes | self._left, self.tools))

    def save(self, seat: int, said: Mapping[str, Any]) -> None:
        """Keep a part of a checkpoint, off the foreman's thread; it counts once it is read back."""
        node = self.crew.seats[seat].node
        part = Part(
            step=int(said["step"]), rank=seat, digest="", world=int(said["world"]),
            whole=bool(said["whole"]),
        )  # fmt: skip

        def keep() -> None:
            with suppress(NodeLost, KarezError, OSError):  # the next checkpoint may do better
                entry = self.tools.fabric.save(node, str(said["path"]))
                with self.tools.blobs.open(entry.sha256) as file:
                    again = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # a BinaryIO
                if again == entry.sha256:
                    whole = replace(part, digest=again)
                    self.tools.store.history.add_checkpoint(self.job.id, whole)

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
        for node in self.crew.nodes:
            try:
                found += self.tools.fabric.processes(node)
            except NodeLost:
                continue
        return [i for i in found if i.workload == self.job.id and i.epoch <= self.kit.epoch]

    def alive(self) -> set[int]:
        """Seats whose process lives."""
        named = (parse_key(info.key) for info in self.processes() if info.alive)
        return {seat for seat, _ in filter(None, named)}

    def vanished(self, gang: words.Gang, now: float) -> list[tuple[int, int]]:
        """(seat, life) of ranks that are waited for and that their nodes know nothing of.

        A node may start anew between the moment at which a foreman takes over and its first look at
        that node: then no exit is ever reported.
        """
        if gang.phase != words.Phase.QUIESCING or now - gang.since < gang.limits.quiesce_s / 2:
            return []
        awaited = [(n, rank) for n, rank in gang.active if rank.alive and not rank.standing]
        known: dict[NodeId, set[str]] = {}
        for node in {rank.node for _, rank in awaited}:
            with suppress(NodeLost):
                known[node] = {info.key for info in self.tools.fabric.processes(node)}
        return [
            (seat, rank.life)
            for seat, rank in awaited
            if rank.node in known and rank_key(self.job.id, seat, rank.life) not in known[rank.node]
        ]

    def collect(self, gang: words.Gang) -> list[tuple[str, Any]]:
        """The outputs of the first rank. Raises NodeLost."""
        seat, rank = gang.active[0]
        return list(self.tools.fabric.collect(rank.node, rank_key(self.job.id, seat, rank.life)))

    def forget(self) -> None:
        """Clear all its nodes of it, also those that it has left."""
        for node in self.crew.nodes | self._left:
            self.on(node, lambda node: self.tools.fabric.forget(node, self.job.id))
