"""Carries out what the protocol decides for one job: the thin loop around a pure machine.

It can be killed at any moment: the processes go on, and the next foreman takes them over from
what they last said.
"""

import queue
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from karez.core.ports import (
    Blobs,
    Clock,
    Event,
    Fabric,
    LogSink,
    NodeLost,
    ProcessInfo,
    Staged,
    Store,
)
from karez.core.receipts import Receipt
from karez.core.resources import Grant, Need, NodeId
from karez.core.settings import Settings
from karez.core.usage import MetricRow
from karez.core.workloads import (
    Allocation,
    EndReason,
    Job,
    RankView,
    State,
    WorkloadKind,
)
from karez.training import protocol as p
from karez.training.launch import Kit, parse_key, rank_key, rank_spec, store_spec
from karez.training.results import register_outputs

STOP_GRACE_S = 5.0
"""Between SIGTERM and SIGKILL when a job is cancelled. Kubernetes' default is 30 s; ranks here
have nothing to save by then, since every step is kept."""
MASTER_PORTS = range(20_000, 30_000)
"""Below Linux's default range of ephemeral ports (32768 and up, ip(7))."""
RESTART_LIMIT = 3
"""Restarts from a checkpoint that a training job gets by itself, as torchrun's --max-restarts=3
in its documentation's examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What foremen work with."""

    store: Store
    fabric: Fabric
    blobs: Blobs
    clock: Clock
    settings: Settings
    logs: LogSink
    find: Callable[[Need, int, frozenset[NodeId]], Sequence[Grant]]
    """Free devices for more workers, off these nodes."""
    secrets: Callable[[str, Sequence[str]], Mapping[str, str]]


class Foreman:
    """One job's foreman; `run` lives in a thread of its own."""

    def __init__(self, job: Job, allocation: Allocation, token: str, tools: Tools) -> None:
        """Take a job under a lease."""
        self.job = job
        self.token = token
        self.tools = tools
        self.epoch = allocation.epoch
        self.grants: dict[int, Grant] = dict(enumerate(allocation.grants))
        self.status = replace(job.status, reason="")
        self.started_at = job.started_at
        self._news: queue.SimpleQueue[tuple[NodeId, Event | None]] = queue.SimpleQueue()
        self._pollers: set[NodeId] = set()
        self._over = threading.Event()
        self._stores: dict[int, str] = {}
        self._pending_go: p.Go | None = None
        self._ended: p.End | None = None
        self._metrics: list[MetricRow] = []
        self._views: dict[int, RankView] = {}
        self._kit = Kit(job=job, epoch=self.epoch)
        self._gang = p.Gang(ranks=())
        self._checkpoint_at = tools.clock.now()
        self._looked_at = 0.0

    def run(self) -> None:
        """Until the job has ended, waits again, or another control owns it."""
        try:
            self._prepare()
            self._begin_or_adopt()
            while self._ended is None and not self._over.is_set():
                self._turn()
            if self._ended is not None:
                self._close(self._ended)
        except _Refused as refused:
            self._close(p.End(reason=refused.reason, detail=str(refused)))
        finally:
            self._over.set()

    def stand_down(self) -> None:
        """Stop looking after the job; its processes go on."""
        self._over.set()

    # start

    def _prepare(self) -> None:
        spec, store = self.job.spec, self.tools.store
        staged = []
        for folder, ident in spec.inputs.items():
            artifact = store.artifact(ident)
            if artifact is None:
                raise _Refused(EndReason.INPUT_MISSING, f"input {folder}: no artifact {ident}")
            staged.append(
                Staged(artifact=artifact.id, folder=folder, files=artifact.spec.files)
            )
        code = store.artifact(spec.code) if spec.code else None
        if spec.code and code is None:
            raise _Refused(EndReason.INPUT_MISSING, f"code artifact {spec.code} is gone")
        self._kit = replace(
            self._kit,
            inputs=tuple(staged),
            code=code.spec.files if code else (),
            secrets=self.tools.secrets(spec.project, spec.secrets),
            keepers=self._keepers(),
            world=len(self.grants),
            master=self._master(),
        )

    def _master(self) -> str:
        """Where scripts that build their own group meet: a port that follows from the epoch."""
        first = self.grants[0].node
        address = next((n.address for n in self.tools.store.nodes() if n.id == first), "")
        spot = zlib.crc32(f"{self.job.id}/{self.epoch}".encode())
        return f"{address}:{MASTER_PORTS[spot % len(MASTER_PORTS)]}"

    def _keepers(self) -> list[str]:
        found = []
        for node in sorted({grant.node for grant in self.grants.values()}):
            try:
                found.append(self.tools.fabric.keeper(node))
            except NodeLost:
                continue
        return found

    def _begin_or_adopt(self) -> None:
        now = self.tools.clock.now()
        settings = self.tools.settings
        limits = p.Limits(
            quiesce_s=settings.quiesce_s, start_s=settings.start_s, faults=settings.fault_limit
        )
        known = self._known_processes()
        newest: dict[int, tuple[int, ProcessInfo]] = {}
        for info in known:
            named = parse_key(info.key)
            if named and (named[0] not in newest or newest[named[0]][0] < named[1]):
                newest[named[0]] = (named[1], info)
        ranks = [
            _rank_from(grant, *newest.get(seat, (1, None))) for seat, grant in sorted(self.grants.items())
        ]
        generation = max([self.status.generation, 1, *(_generation(i) for _, i in newest.values())])
        self._gang = p.Gang(ranks=tuple(ranks), generation=generation, since=now, limits=limits)
        for seat, rank in enumerate(ranks):
            self._view(seat, node=rank.node, state="starting", devices=_devices(self.grants[seat]))
        if not newest:
            self._move(State.STARTING)
            self._gang = replace(self._gang, generation=generation + (1 if self.status.generation else 0))
            self._remember_generation()
            self._do(p.begin(self._gang), now)
        else:
            said = [info.said for _, info in newest.values()]
            is_session = any("stood" in words for words in said)
            self._gang = replace(self._gang, is_session=is_session)
            together = not is_session or all(
                words.get("resumed", {}).get("generation") == generation for words in said
            )
            for seat, (_, info) in newest.items():
                self._view(seat, pid=info.pid, state="running" if info.alive else "lost")
            self._gang, commands = p.adopt(self._gang, together=together, now=now)
            self._do(commands, now)
            for seat, (life, info) in newest.items():
                if info.said.get("done", {}).get("generation") == self._gang.generation:
                    self._apply(p.Finished(rank=seat, life=life))
                if not is_session and not info.alive:
                    code = -9 if info.exit_code is None else info.exit_code
                    self._apply(p.Exited(rank=seat, life=life, code=code, error=info.error))
        for node in {grant.node for grant in self.grants.values()}:
            self._watch(node)

    def _known_processes(self) -> list[ProcessInfo]:
        found: list[ProcessInfo] = []
        for node in {grant.node for grant in self.grants.values()}:
            try:
                found += self.tools.fabric.processes(node)
            except NodeLost:
                continue
        return [i for i in found if i.workload == self.job.id and i.epoch <= self.epoch]

    # the loop

    def _watch(self, node: NodeId) -> None:
        if node and node not in self._pollers:
            self._pollers.add(node)
            threading.Thread(target=self._poll, args=(node,), daemon=True).start()

    def _poll(self, node: NodeId) -> None:
        """In a thread per node: its events into the queue, None once it is lost."""
        after, boot, misses = 0, "", 0
        while not self._over.is_set():
            try:
                answer = self.tools.fabric.poll(node, self.job.id, after, 1.0)
            except NodeLost:
                misses += 1
                if misses > 1:
                    self._news.put((node, None))
                    self._pollers.discard(node)
                    return
                continue
            if boot and answer.boot != boot:
                self._news.put((node, None))
                self._pollers.discard(node)
                return
            boot, misses, after = answer.boot, 0, answer.seq
            for event in answer.events:
                self._news.put((node, event))

    def _turn(self) -> None:
        try:
            node, event = self._news.get(timeout=0.1)
            if event is None:
                self._apply(p.NodeGone(node=node))
            else:
                self._hear(event)
        except queue.Empty:
            pass
        now = self.tools.clock.now()
        self._apply(p.Tick())
        if now - self._looked_at > self.tools.settings.tick_s or self._ended:
            self._looked_at = now
            self._look(now)

    def _hear(self, event: Event) -> None:
        named = parse_key(event.key)
        data: Mapping[str, Any] = event.data
        if named is None:
            if event.type == "store":
                self._stores[int(data["generation"])] = str(data["address"])
                if self._pending_go is not None:
                    self._go(self._pending_go)
            return
        seat, life = named
        generation = int(data.get("generation", 0))
        match event.type:
            case "started":
                self._view(seat, pid=int(data["pid"]), state="starting")
                self._apply(p.Started(rank=seat, life=life))
            case "stood":
                steps = {int(step): str(source) for step, source in data["steps"].items()}
                self._view(seat, state="standing")
                self._apply(p.Stood(rank=seat, life=life, generation=generation, steps=steps))
            case "resumed":
                self._view(seat, state="running", step=int(data["step"]))
                self._apply(p.Resumed(rank=seat, generation=generation))
            case "commit":
                self._commit(seat, event)
            case "stumbled":
                self._apply(
                    p.Stumbled(rank=seat, generation=generation, error=str(data["error"]))
                )
            case "done":
                self._view(seat, state="done")
                if generation == self._gang.generation:
                    self._apply(p.Finished(rank=seat, life=life))
            case "total":
                self.status = replace(self.status, total_steps=int(data["steps"]))
            case "stored":
                self._stored(seat, data)
            case "exit":
                self._view(seat, state="ended")
                self._apply(
                    p.Exited(
                        rank=seat, life=life, code=int(data["code"]), error=str(data["error"])
                    )
                )

    def _commit(self, seat: int, event: Event) -> None:
        step, generation = int(event.data["step"]), int(event.data["generation"])
        self._metrics.append(
            MetricRow(
                step=step,
                rank=seat,
                loss=float(event.data["loss"]),
                at=event.at,
                generation=generation,
            )
        )
        self._view(seat, step=step, state="running")
        if generation == self._gang.generation:
            self.status = replace(self.status, step=step, loss=float(event.data["loss"]))
        self._apply(p.Committed(rank=seat, generation=generation, step=step))

    def _apply(self, event: p.Event) -> None:
        before = self._gang
        now = self.tools.clock.now()
        self._gang, commands = p.advance(before, event, now)
        if self._gang.generation != before.generation:
            self._remember_generation()
        if commands:
            self._do(commands, now)
        if self._gang.phase != before.phase:
            self._show_phase()

    def _do(self, commands: Sequence[p.Command], now: float) -> None:
        for command in commands:
            match command:
                case p.Spawn():
                    self._spawn(command)
                case p.Halt(rank=seat, generation=generation):
                    self._tell(seat, {"type": "halt", "generation": generation})
                case p.Go():
                    self._go(command)
                case p.Kill(rank=seat):
                    self._kill(seat, 0.0)
                case p.FindPlaces(ranks=seats):
                    self._find_places(seats)
                case p.Leave():
                    for seat, _ in self._gang.active:
                        self._tell(seat, {"type": "leave"})
                case p.WriteReceipt():
                    self._write_receipt(command)
                case p.End():
                    self._ended = command
        if not any(isinstance(command, p.End) for command in commands):
            self._open_store()
        del now

    def _open_store(self) -> None:
        """Start this generation's rendezvous store ahead of its Go."""
        generation = self._gang.generation
        wanted = len(self._gang.active) > 1 and self.job.spec.kind == WorkloadKind.TRAIN
        homes = [rank.node for _, rank in self._gang.active if rank.node]
        if not wanted or not homes or generation in self._stores:
            return
        self._stores[generation] = ""
        self._on(homes[0], lambda node: self.tools.fabric.start(node, store_spec(self._kit, generation)))

    def _spawn(self, command: p.Spawn) -> None:
        restore: dict[str, str] = {}
        kept = self.tools.store.newest_checkpoint(self.job.id, len(self._gang.active))
        if command.rank in kept:
            step, digest = kept[command.rank]
            restore[f"step-{step}-{command.rank}.kz"] = digest
        grant = self.grants[command.rank]
        spec = rank_spec(self._kit, command.rank, command.life, grant, restore=restore)
        self._view(command.rank, node=grant.node, state="starting", devices=_devices(grant))
        self._on(command.node, lambda node: self.tools.fabric.start(node, spec))

    def _go(self, go: p.Go) -> None:
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
        need = _need(self.grants[seats[0]], gang.each)
        found = self.tools.find(need, len(seats), lost) if "replace" in ladder else ()
        if len(found) == len(seats):
            if self._regrant({**kept, **dict(zip(seats, found, strict=True))}):
                self._kit = replace(self._kit, keepers=self._keepers(), epoch=self.epoch)
                for grant in found:
                    self._watch(grant.node)
                self._apply(p.Moved(nodes={s: g.node for s, g in zip(seats, found, strict=True)}))
        elif "shrink" in ladder and len(kept) >= gang.min:
            if self._regrant(kept):
                self._apply(p.Shrunk(keep=tuple(kept)))
        else:
            self._apply(p.Moved(nodes={}))

    def _regrant(self, grants: dict[int, Grant]) -> bool:
        epoch = self.tools.store.regrant(
            self.job.id, self.token, list(grants.values()), now=self.tools.clock.now()
        )
        if epoch is None:
            self._over.set()
            return False
        self.epoch, self.grants = epoch, {**self.grants, **grants}
        return True

    # looking around

    def _look(self, now: float) -> None:
        self._pull_logs()
        self.tools.store.add_metrics(self.job.id, self._metrics)
        self._metrics.clear()
        views = tuple(self._views[seat] for seat, _ in self._gang.active if seat in self._views)
        self.status = replace(self.status, ranks=views)
        self._move(None)
        fresh = self.tools.store.job(self.job.id)
        if fresh is not None and fresh.state == State.STOPPING and self._ended is None:
            self._stop(p.End(reason=EndReason.CANCELLED, detail="cancelled by request"))
        limit_s = self.job.spec.max_duration_s
        if limit_s and self.started_at and now - self.started_at > limit_s and not self._ended:
            self._stop(p.End(reason=EndReason.TIMED_OUT, detail=f"ran for {limit_s:.0f} s"))
        if now - self._checkpoint_at > self.tools.settings.checkpoint_s:
            self._checkpoint_at = now
            self._ask_checkpoint()

    def _ask_checkpoint(self) -> None:
        """Have every rank store the same step, one that none has reached yet."""
        if self._gang.phase != p.Phase.RUNNING or not self._gang.is_session:
            return
        step = max(rank.committed for _, rank in self._gang.active) + 2
        for seat, _ in self._gang.active:
            self._tell(seat, {"type": "store", "step": step})

    def _stored(self, seat: int, data: Mapping[str, Any]) -> None:
        def save(node: NodeId) -> None:
            entry = self.tools.fabric.save(node, str(data["path"]))
            self.tools.store.add_checkpoint(self.job.id, int(data["step"]), seat, entry.sha256)

        self._on(self.grants[seat].node, save)

    def _pull_logs(self) -> None:
        logs, job = self.tools.logs, self.job.id
        for seat, rank in self._gang.active:
            for life in range(max(1, rank.life - 1), rank.life + 1):
                key, name = rank_key(job, seat, life), f"rank-{seat}.{self.epoch}.{life}"

                def pull(node: NodeId, key: str = key, name: str = name) -> None:
                    data = self.tools.fabric.read_log(node, key, logs.size(job, name), 1 << 20)
                    if data:
                        logs.append(job, name, data)

                self._on(rank.node, pull)

    def _move(self, state: State | None) -> None:
        """Write the status; a lost lease ends this foreman."""
        now = self.tools.clock.now()
        if state == State.RUNNING and self.started_at is None:
            self.started_at = now
        done = self.tools.store.update(
            self.job.id, token=self.token, state=state, status=self.status, at=now
        )
        if not done and state is None:
            self._over.set()

    def _remember_generation(self) -> None:
        self.status = replace(self.status, generation=self._gang.generation)
        self._move(None)

    def _show_phase(self) -> None:
        phase = self._gang.phase
        fault = self._gang.fault
        if phase == p.Phase.RUNNING:
            self.status = replace(self.status, reason="")
            self._move(State.RUNNING)
        elif phase in (p.Phase.QUIESCING, p.Phase.PLACING, p.Phase.RESUMING) and fault is not None:
            self.status = replace(self.status, reason=f"{phase}: {fault.cause}")
            self._move(State.RECOVERING)
        elif phase == p.Phase.RESUMING:
            self._move(State.RUNNING)

    def _view(self, seat: int, **changes: Any) -> None:
        view = self._views.get(seat) or RankView(rank=seat, node=NodeId(""))
        self._views[seat] = replace(view, **changes)
        plain = changes.get("state") == "starting" and changes.get("pid")
        if plain and not self._gang.is_session and self.job.spec.kind == WorkloadKind.BATCH:
            self._move(State.RUNNING)

    def _write_receipt(self, command: p.WriteReceipt) -> None:
        fault = command.fault
        self.tools.store.add_receipt(
            Receipt(
                id=f"rcp-{self.job.id.removeprefix('job-')}-{command.generation}",
                job=self.job.id,
                generation=command.generation,
                cause=fault.cause,
                ranks=fault.ranks,
                rung=fault.rung,
                source=fault.source,
                detected_at=fault.detected_at,
                decided_at=fault.decided_at,
                restored_at=fault.restored_at,
                resumed_at=command.resumed_at,
                step_before=fault.step_before,
                step_restored=fault.step_restored,
                epoch=self.epoch,
            )
        )

    # the end

    def _stop(self, end: p.End) -> None:
        for seat, _ in self._gang.active:
            self._kill(seat, STOP_GRACE_S)
        deadline = self.tools.clock.now() + 2 * STOP_GRACE_S
        while self.tools.clock.now() < deadline and any(i.alive for i in self._known_ranks()):
            self._over.wait(0.1)
        self._ended = end

    def _known_ranks(self) -> list[ProcessInfo]:
        return [info for info in self._known_processes() if parse_key(info.key)]

    def _close(self, end: p.End) -> None:
        self._pull_logs()
        self.tools.store.add_metrics(self.job.id, self._metrics)
        now = self.tools.clock.now()
        outputs: Mapping[str, str] = self.status.outputs
        if end.reason == EndReason.DONE:
            try:
                outputs = register_outputs(self.tools, self.job, self._collect())
            except NodeLost as lost:
                end = p.End(reason=EndReason.OUTPUT_LOST, detail=f"outputs are out of reach: {lost}")
        views = tuple(self._views[seat] for seat, _ in self._gang.active if seat in self._views)
        status = replace(
            self.status, end=end.reason, reason=end.detail, outputs=outputs, ranks=views
        )
        store = self.tools.store
        if end.reason == EndReason.DONE:
            store.end(self.job.id, self.token, State.SUCCEEDED, status, now=now)
        elif end.reason == EndReason.CANCELLED:
            store.end(self.job.id, self.token, State.CANCELLED, status, now=now)
        elif self._may_retry(end.reason):
            self._forget()  # before the queue can start it anew
            again = replace(status, retries=status.retries + 1, end=None, ranks=())
            if not store.requeue(self.job.id, self.token, again, now=now):
                store.end(self.job.id, self.token, State.CANCELLED, status, now=now)
            return
        else:
            store.end(self.job.id, self.token, State.FAILED, status, now=now)
        self._forget()

    def _may_retry(self, reason: EndReason) -> bool:
        spec = self.job.spec
        limit, causes = spec.retry.limit, spec.retry.causes
        if spec.kind == WorkloadKind.TRAIN and "restart" in spec.ladder:
            limit = max(limit, RESTART_LIMIT)
        return reason in causes and self.status.retries < limit

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


class _Refused(Exception):  # noqa: N818 - leaves `run` early
    def __init__(self, reason: EndReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _rank_from(grant: Grant, life: int, info: ProcessInfo | None) -> p.Rank:
    if info is None:
        return p.Rank(node=grant.node, life=life)
    said = info.said
    committed = int(said.get("commit", {}).get("step", said.get("resumed", {}).get("step", 0)))
    return p.Rank(
        node=grant.node,
        life=life,
        alive=info.alive,
        settled="stood" in said,
        committed=committed,
    )


def _generation(info: ProcessInfo) -> int:
    return max([int(words.get("generation", 0)) for words in info.said.values()], default=0)


def _devices(grant: Grant) -> str:
    return f"{grant.kind}:{','.join(str(index) for index in grant.indices)}"


def _need(grant: Grant, each: Sequence[Need]) -> Need:
    """The alternative that a grant was made for."""
    for need in each:
        if need.kind == grant.kind and need.milli == grant.milli:
            return need
    return each[0]


