"""Carries out what the protocol decides for one job: the thin loop around a pure machine.

It can be killed at any moment: the processes go on, and the next foreman takes them over from
what they last said.
"""

import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from karez.core.ports import Event, NodeLost, ProcessInfo
from karez.core.resources import Grant, NodeId
from karez.core.workloads import Allocation, EndReason, Job, State, WorkloadKind
from karez.training import gang as words
from karez.training import protocol
from karez.training.hearing import (
    Found,
    gang_from,
    newest,
    translate,
    view_changes,
    work_together,
)
from karez.training.kit import Refused, devices_of, gather_kit, keepers_of, need_of
from karez.training.launch import Kit, parse_key, rank_key, rank_spec, store_spec
from karez.training.record import Record, Tools
from karez.training.results import register_outputs
from karez.training.watch import Watch

YIELD_S = 30.0
"""How long a job that makes room may take to store a step; after that it goes back to an older."""
STOP_GRACE_S = 5.0
"""Between SIGTERM and SIGKILL when a job is cancelled. Kubernetes' default is 30 s; ranks here
have nothing to save by then, since every step is kept."""


class Foreman:
    """One job's foreman; `run` lives in a thread of its own."""

    def __init__(self, job: Job, allocation: Allocation, token: str, tools: Tools) -> None:
        """Take a job under a lease."""
        self.job = job
        self.token = token
        self.tools = tools
        self.epoch = allocation.epoch
        self.grants: dict[int, Grant] = dict(enumerate(allocation.grants))
        self.record = Record(job, token, tools)
        self.record.held_since = allocation.since
        self._over = threading.Event()
        self._watch = Watch(tools.fabric, job.id, self._over)
        self._stores: dict[int, str] = {}
        self._pending_go: words.Go | None = None
        self._ended: words.End | None = None
        self._kit = Kit(job=job, epoch=self.epoch)
        self._gang = words.Gang(ranks=())
        self._checkpoint_at = tools.clock.now()
        self._looked_at = 0.0
        self._yields_at: tuple[int | None, float] | None = None

    def run(self) -> None:
        """Until the job has ended, waits again, or another control owns it."""
        try:
            self._kit = gather_kit(self.job, self.epoch, self.grants, self.tools)
            self._begin_or_adopt()
            while self._ended is None and not self._over.is_set():
                self._turn()
            if self._ended is not None:
                self._close(self._ended)
        except Refused as refused:
            self._close(words.End(reason=refused.reason, detail=str(refused)))
        finally:
            self._over.set()

    def stand_down(self) -> None:
        """Stop looking after the job; its processes go on."""
        self._over.set()

    # start

    def _begin_or_adopt(self) -> None:
        now, settings = self.tools.clock.now(), self.tools.settings
        limits = words.Limits(
            quiesce_s=settings.quiesce_s, start_s=settings.start_s, faults=settings.fault_limit
        )
        found = newest(self._known_processes())
        before = self.record.status.generation
        self._gang = gang_from(
            self.grants, found, generation=before if found else before + 1, limits=limits, now=now
        )
        for seat, grant in self.grants.items():
            self.record.view(seat, node=grant.node, state="starting", devices=devices_of(grant))
        if found:
            self._adopt(found, now)
        else:
            self.record.write(State.STARTING)
            self.record.show_generation(self._gang)
            self._do(protocol.begin(self._gang))
        for node in {grant.node for grant in self.grants.values()}:
            self._watch.on(node)

    def _adopt(self, found: Found, now: float) -> None:
        """Go on with the processes of a foreman that was lost."""
        for seat, (_, info) in found.items():
            self.record.view(seat, pid=info.pid, state="running" if info.alive else "lost")
        together = work_together(self._gang, found)
        self._gang, commands = protocol.adopt(self._gang, together=together, now=now)
        self.record.show_generation(self._gang)
        self._do(commands)
        for seat, (life, info) in found.items():
            if not info.alive:
                code = -int(signal.SIGKILL) if info.exit_code is None else info.exit_code
                self._apply(words.Exited(rank=seat, life=life, code=code, error=info.error))

    def _known_processes(self) -> list[ProcessInfo]:
        found: list[ProcessInfo] = []
        for node in {grant.node for grant in self.grants.values()}:
            try:
                found += self.tools.fabric.processes(node)
            except NodeLost:
                continue
        return [i for i in found if i.workload == self.job.id and i.epoch <= self.epoch]

    # the loop

    def _turn(self) -> None:
        news = self._watch.next(within_s=0.1)
        if news is not None:
            node, event = news
            if event is None:
                self._apply(words.NodeGone(node=node))
            else:
                self._hear(event)
        now = self.tools.clock.now()
        self._apply(words.Tick())
        if now - self._looked_at > self.tools.settings.tick_s or self._ended:
            self._looked_at = now
            self._look(now)

    def _hear(self, event: Event) -> None:
        named = parse_key(event.key)
        if named is None:
            self._hear_store(event)
            return
        seat, life = named
        current = self._gang.ranks[seat].life == life if seat < len(self._gang.ranks) else False
        if current and (changes := view_changes(event)):
            self.record.view(seat, **changes)
        self.record.note(seat, event, self._gang.generation)
        if event.type == "stored":
            self._stored(seat, event.data)
        if (said := translate(event, seat, life)) is not None:
            self._apply(said)
        if event.type == "started":
            self.record.show_started(self._gang)

    def _hear_store(self, event: Event) -> None:
        if event.type == "store":
            self._stores[int(event.data["generation"])] = str(event.data["address"])
            if self._pending_go is not None:
                self._go(self._pending_go)

    def _apply(self, event: words.Event) -> None:
        before = self._gang
        now = self.tools.clock.now()
        self._gang, commands = protocol.advance(before, event, now)
        if self._gang.generation != before.generation:
            self.record.show_generation(self._gang)
        if commands:
            self._do(commands)
        if self._gang.phase != before.phase:
            self.record.show_phase(self._gang)

    def _do(self, commands: Sequence[words.Command]) -> None:
        for command in commands:
            self._do_one(command)
        if self._ended is None:
            self._open_store()

    def _do_one(self, command: words.Command) -> None:
        match command:
            case words.Spawn():
                self._spawn(command)
            case words.Halt(rank=seat, generation=generation):
                self._tell(seat, {"type": "halt", "generation": generation})
            case words.Go():
                self._go(command)
            case words.Kill(rank=seat):
                self._kill(seat, 0.0)
            case words.FindPlaces(ranks=seats):
                self._find_places(seats)
            case words.Leave():
                for seat, _ in self._gang.active:
                    self._tell(seat, {"type": "leave"})
            case words.WriteReceipt():
                self.record.receipt(command, self.epoch)
            case words.End():
                self._ended = command

    def _open_store(self) -> None:
        """Start this generation's rendezvous store ahead of its Go."""
        generation = self._gang.generation
        wanted = len(self._gang.active) > 1 and self.job.spec.kind == WorkloadKind.TRAIN
        homes = [rank.node for _, rank in self._gang.active if rank.node]
        if not wanted or not homes or generation in self._stores:
            return
        self._stores[generation] = ""
        self._on(
            homes[0], lambda node: self.tools.fabric.start(node, store_spec(self._kit, generation))
        )

    def _spawn(self, command: words.Spawn) -> None:
        restore: dict[str, str] = {}
        kept = self.tools.store.history.newest_checkpoint(self.job.id, len(self._gang.active))
        if command.rank in kept:
            step, digest = kept[command.rank]
            restore[f"step-{step}-{command.rank}.kz"] = digest
        grant = self.grants[command.rank]
        spec = rank_spec(self._kit, command.rank, command.life, grant, restore=restore)
        self.record.view(command.rank, node=grant.node, state="starting", devices=devices_of(grant))
        self._on(command.node, lambda node: self.tools.fabric.start(node, spec))

    def _go(self, go: words.Go) -> None:
        if go.generation != self._gang.generation:
            self._pending_go = None
            return
        active = self._gang.active
        store = self._stores.get(go.generation, "")
        if len(active) > 1 and not store:
            self._pending_go = go  # until the store says where it is
            return
        self._pending_go = None
        nodes = sorted({rank.node for _, rank in active})
        for number, (seat, rank) in enumerate(active):
            peer = nodes[(nodes.index(rank.node) + 1) % len(nodes)]
            message = {
                "type": "go",
                "generation": go.generation,
                "step": go.step,
                "rank": number,
                "world": len(active),
                "store": store,
                "peer": "" if peer == rank.node else self._keeper(peer),
            }
            self._tell(seat, message)

    def _keeper(self, node: NodeId) -> str:
        try:
            return self.tools.fabric.keeper(node)
        except NodeLost:
            return ""

    def _find_places(self, seats: tuple[int, ...]) -> None:
        """Replace lost ranks on other devices, or go on without them."""
        ladder, gang = self.job.spec.ladder, self.job.spec.gang
        lost = frozenset(self.grants[seat].node for seat in seats)
        kept = {s: self.grants[s] for s, rank in self._gang.active if s not in seats}
        need = need_of(self.grants[seats[0]], gang.each)
        found = self.tools.find(need, len(seats), lost) if "replace" in ladder else ()
        if len(found) == len(seats):
            if self._regrant({**kept, **dict(zip(seats, found, strict=True))}):
                self._kit = replace(
                    self._kit, keepers=keepers_of(self.grants, self.tools), epoch=self.epoch
                )
                for grant in found:
                    self._watch.on(grant.node)
                nodes = {seat: grant.node for seat, grant in zip(seats, found, strict=True)}
                self._apply(words.Moved(nodes=nodes))
        elif "shrink" in ladder and len(kept) >= gang.min:
            if self._regrant(kept):
                self._apply(words.Shrunk(keep=tuple(kept)))
        else:
            self._apply(words.Moved(nodes={}))

    def _regrant(self, grants: dict[int, Grant]) -> bool:
        epoch = self.tools.store.workloads.regrant(
            self.job.id, self.token, list(grants.values()), now=self.tools.clock.now()
        )
        if epoch is None:
            self._over.set()
            return False
        self.epoch, self.grants = epoch, {**self.grants, **grants}
        return True

    # looking around

    def _look(self, now: float) -> None:
        self.record.pull_logs(self._gang, self.epoch)
        fresh = self.tools.store.workloads.job(self.job.id)
        if fresh is not None and fresh.state == State.STOPPING and self._ended is None:
            self._stop(words.End(reason=EndReason.CANCELLED, detail="cancelled by request"))
        elif fresh is not None and fresh.state == State.YIELDING and self._ended is None:
            self._yield(now)
        elif not self.record.flush(self._gang):
            self._over.set()  # another control owns the job
        limit_s, since = self.job.spec.max_duration_s, self.record.started_at
        if limit_s and since and now - since > limit_s and self._ended is None:
            self._stop(words.End(reason=EndReason.TIMED_OUT, detail=f"ran for {limit_s:.0f} s"))
        if now - self._checkpoint_at > self.tools.settings.checkpoint_s:
            self._checkpoint_at = now
            self._ask_checkpoint()

    def _ask_checkpoint(self) -> int | None:
        """Have every rank store the same step, one that none has reached yet; which."""
        if self._gang.phase != words.Phase.RUNNING or not self._gang.is_session:
            return None
        step = max(rank.committed for _, rank in self._gang.active) + 2
        for seat, _ in self._gang.active:
            self._tell(seat, {"type": "store", "step": step})
        return step

    def _yield(self, now: float) -> None:
        """Make room: store a step, end the ranks, wait again."""
        if self._yields_at is None:
            self._yields_at = (self._ask_checkpoint(), now + YIELD_S)
        step, until = self._yields_at
        kept = self.tools.store.history.newest_checkpoint(self.job.id, len(self._gang.active))
        is_kept = step is None or any(stored >= step for stored, _ in kept.values())
        if is_kept or now > until:
            self._stop(words.End(reason=EndReason.PREEMPTED, detail="it made room for others"))

    def _stored(self, seat: int, data: Mapping[str, Any]) -> None:
        def save(node: NodeId) -> None:
            entry = self.tools.fabric.save(node, str(data["path"]))
            self.tools.store.history.add_checkpoint(
                self.job.id, int(data["step"]), seat, entry.sha256
            )

        self._on(self.grants[seat].node, save)

    # the end

    def _stop(self, end: words.End) -> None:
        for seat, _ in self._gang.active:
            self._kill(seat, STOP_GRACE_S)
        deadline = self.tools.clock.now() + 2 * STOP_GRACE_S
        while self.tools.clock.now() < deadline and any(i.alive for i in self._known_ranks()):
            self._over.wait(0.1)
        self._ended = end

    def _known_ranks(self) -> list[ProcessInfo]:
        return [info for info in self._known_processes() if parse_key(info.key)]

    def _close(self, end: words.End) -> None:
        self.record.pull_logs(self._gang, self.epoch)
        outputs: Mapping[str, str] = {}
        if end.reason == EndReason.DONE:
            try:
                outputs = register_outputs(self.tools, self.job, self._collect())
            except NodeLost as lost:
                detail = f"outputs are out of reach: {lost}"
                end = words.End(reason=EndReason.OUTPUT_LOST, detail=detail)
        starts_over = self.record.may_retry(end.reason)
        if starts_over:
            self._forget()  # before the queue can start it anew
        self.record.close(end, outputs, self._gang)
        if not starts_over:
            self._forget()  # only now: whoever finds no trace of a live job starts it

    def _collect(self) -> list[tuple[str, Any]]:
        seat, rank = self._gang.active[0]
        key = rank_key(self.job.id, seat, rank.life)
        return list(self.tools.fabric.collect(rank.node, key))

    def _forget(self) -> None:
        for node in {grant.node for grant in self.grants.values()}:
            self._on(node, lambda node: self.tools.fabric.forget(node, self.job.id))

    def _tell(self, seat: int, message: Mapping[str, Any]) -> None:
        rank = self._gang.ranks[seat]
        key = rank_key(self.job.id, seat, rank.life)
        self._on(rank.node, lambda node: self.tools.fabric.tell(node, key, message))

    def _kill(self, seat: int, grace_s: float) -> None:
        rank = self._gang.ranks[seat]
        key = rank_key(self.job.id, seat, rank.life)
        self._on(rank.node, lambda node: self.tools.fabric.kill(node, key, grace_s=grace_s))

    def _on(self, node: NodeId, act: Callable[[NodeId], None]) -> None:
        """Act on a node; one that is lost is noticed by its poller, not here."""
        if not node:
            return
        try:
            act(node)
        except NodeLost:
            return
