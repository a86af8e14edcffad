"""Carries out what the protocol decides for one job: the thin loop around a pure machine.

It can be killed at any moment: the processes go on, and the next foreman takes them over from
what they last said.
"""

import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from karez.core.ports import Event, NodeLost
from karez.core.resources import Grant, NodeId
from karez.core.workloads import Allocation, EndReason, Job, State
from karez.training import gang as words
from karez.training import protocol
from karez.training.aides import Aides
from karez.training.crew import crew_of
from karez.training.faults import fail
from karez.training.hands import Hands
from karez.training.hearing import (
    Found,
    gang_from,
    newest,
    translate,
    view_changes,
    work_together,
)
from karez.training.interval import Pace
from karez.training.kit import Refused, devices_of, gather_kit
from karez.training.ladder import costs
from karez.training.launch import Kit, parse_key
from karez.training.limits import Limits
from karez.training.lookout import Lookout
from karez.training.memo import Memo, inherited, numbers_in, remember
from karez.training.record import Record, Tools
from karez.training.results import register_outputs
from karez.training.sentry import Sentry
from karez.training.watch import Watch

YIELD_S = 30.0
"""How long a job that makes room may take to store a step; after that it goes back to an older."""
GASP_S = 10.0
"""How long ranks may take to store what they hold when their gang ends in failure."""
STOP_GRACE_S = 5.0
"""Between SIGTERM and SIGKILL when a job is cancelled. Kubernetes' default is 30 s; ranks here
have nothing to save by then, since every step is kept."""


class Foreman:
    """One job's foreman; `run` lives in a thread of its own."""

    def __init__(self, job: Job, allocation: Allocation, token: str, tools: Tools) -> None:
        """Take a job under a lease."""
        self.job = job
        self.tools = tools
        self._granted = allocation.grants
        self.crew = crew_of(allocation.grants, ())
        kit = Kit(job=job, epoch=allocation.epoch)
        self.hands = Hands(job=job, token=token, tools=tools, crew=self.crew, kit=kit)
        self.record = Record(job, token, tools)
        self.record.held_since = allocation.since
        self._over = threading.Event()
        self._watch = Watch(tools.fabric, job.id, self._over)
        self._ended: words.End | None = None
        self._gang = words.Gang(ranks=())
        self._sentry = Sentry(job=job, tools=tools, lookout=Lookout(floor_s=tools.settings.hang_s))
        self._looked_at, self._checkpoint_at = 0.0, tools.clock.now()
        began_at = job.started_at or self._checkpoint_at
        self._pace = Pace(fixed_s=tools.settings.checkpoint_s, began_at=began_at)
        self._yields_at: tuple[int | None, float] | None = None

    def run(self) -> None:
        """Until the job has ended, waits again, or another control owns it."""
        try:
            self.crew = crew_of(self._granted, self.hands.processes())
            self.hands.crew = self.crew
            self.hands.kit = gather_kit(self.job, self.hands.kit.epoch, self.crew, self.tools)
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
        limits = Limits(
            quiesce_s=settings.quiesce_s, start_s=settings.start_s, faults=settings.fault_limit
        )
        receipts = self.tools.store.history.receipts(self.job.id)
        self._pace.faults = len(receipts)
        seats = self.crew.seats
        known = newest(self.hands.processes())
        found = {n: one for n, one in known.items() if n in seats}  # not who was let go
        memo = self.record.memo()
        before = max(self.record.status.generation, memo.generation if memo else 0)
        born = before if found else before + 1
        used = {*known, *numbers_in(memo)}
        gang = gang_from(seats, found, generation=born, limits=limits, now=now, used=used)
        spec, last = self.job.spec, self.record.last_step()
        self._gang = replace(
            remember(gang, memo), ladder=spec.ladder, ladder_fixed=spec.ladder_fixed,
            costs=costs(receipts), fault=None if found else inherited(memo, now, *last),
        )  # fmt: skip
        for seat, grant in self.crew.seats.items():
            self.record.view(seat, node=grant.node, state="starting", devices=devices_of(grant))
        self._aides = Aides(kit=self.hands.kit, start=self.hands.start)
        if found:
            self._adopt(found, memo, now)
        else:
            self.record.log(self._gang)
            self.record.write(State.STARTING)
            self._do(protocol.begin(self._gang))
        known_now = self.hands.processes() if found else []
        self._aides.take_over(known_now, self.job.spec.gang.roles, self.crew.of_role)
        for node in self.crew.nodes:
            self._watch.on(node)

    def _adopt(self, found: Found, memo: Memo | None, now: float) -> None:
        """Go on with the processes of a foreman that was lost."""
        for seat, (_, info) in found.items():
            self.record.view(seat, pid=info.pid, state="running" if info.alive else "lost")
        together = work_together(self._gang, found)
        self.hands.find_store()
        self._gang, commands = protocol.adopt(self._gang, together=together, now=now, memo=memo)
        self.record.log(self._gang)
        self._do(commands)
        for seat, (life, info) in found.items():
            if not info.alive and self._gang.phase != words.Phase.DRAINING:
                code = -int(signal.SIGKILL) if info.exit_code is None else info.exit_code
                self._apply(words.Exited(rank=seat, life=life, code=code, error=info.error))

    # the loop

    def _turn(self) -> None:
        news = self._watch.next(within_s=0.1)
        if news is not None:
            node, event = news
            if event is None:
                self._lose_node(node)
            else:
                self._hear(event)
        now = self.tools.clock.now()
        self._apply(words.Tick())
        hung = self._sentry.look(self._gang, now)
        if hung is not None:
            self._apply(hung)
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
            self._pace.note(float(event.data["held_s"]))
            self.hands.save(seat, event.data)
        if (said := translate(event, seat, life)) is not None:
            busy_s = float(event.data.get("busy_s", 0.0))
            self._apply(said)
            self._sentry.hear(self._gang, said, busy_s, self.tools.clock.now())
        if event.type == "started":
            self.record.show_started(self._gang)

    def _lose_node(self, node: NodeId) -> None:
        """Ranks are replaced; a role's workers are not: their gang starts over elsewhere."""
        self.hands.note_lost(node)
        roles = self.crew.lose(node)
        self._apply(words.NodeGone(node=node))
        if roles and self._ended is None:
            detail = f"node {node} was lost, and with it {', '.join(sorted(roles))}"
            self._fail(EndReason.NODE_LOST, detail, code="node")

    def _hear_store(self, event: Event) -> None:
        failed = self._aides.hear(event, self.crew.of_role)
        if failed and self._ended is None:
            self._fail(EndReason.USER_ERROR, failed)
        self.hands.hear_store(event, self._gang)

    def _apply(self, event: words.Event) -> None:
        before = self._gang
        now = self.tools.clock.now()
        self._gang, commands = protocol.advance(before, event, now)
        for command in commands:
            if isinstance(command, words.WriteReceipt):  # before the fault is forgotten
                self._learn(command)
        if (self._gang.generation, self._gang.phase) != (before.generation, before.phase):
            self.record.log(self._gang)
        if commands:
            self._do(commands)
        if self._gang.phase != before.phase:
            self.record.show_phase(self._gang)

    def _do(self, commands: Sequence[words.Command]) -> None:
        for command in commands:
            self._do_one(command)
        if self._ended is None:
            self.hands.open_store(self._gang)

    def _do_one(self, command: words.Command) -> None:
        match command:
            case words.Spawn():
                grant = self.hands.spawn(self._gang, command)
                where = {"node": grant.node, "devices": devices_of(grant)}
                self.record.view(command.rank, state="starting", **where)
            case words.Halt(rank=seat, generation=generation):
                self.hands.tell(self._gang, seat, {"type": "halt", "generation": generation})
            case words.Go():
                self.hands.go(self._gang, command)
            case words.Seek() | words.Clear():
                self.hands.ask(self._gang, command)
            case words.Kill(rank=seat, node=node, life=life):
                self.hands.kill(node, seat, life)
            case words.FindPlaces():
                self._find_places(command)
            case words.Gasp(ranks=seats):
                self._gasp(set(seats))
            case words.Leave():
                self.hands.tell_all(self._gang, {"type": "leave"})
            case words.End():
                self._ended = command

    def _learn(self, command: words.WriteReceipt) -> None:
        """What recoveries cost so far decides which rung comes first."""
        self.record.receipt(command, self.hands.kit.epoch)
        receipts = self.tools.store.history.receipts(self.job.id)
        self._pace.faults = len(receipts)
        self._gang = replace(self._gang, costs=costs(receipts))

    def _gasp(self, seats: set[int]) -> None:
        """Wait a while for those that live to store what they hold."""
        for seat in seats:
            self.hands.tell(self._gang, seat, {"type": "gasp"})
        until = self.tools.clock.now() + GASP_S
        while seats and self.tools.clock.now() < until:
            news = self._watch.next(within_s=0.1)
            event = news[1] if news is not None else None
            named = None if event is None else parse_key(event.key)
            if event is not None and named is not None and event.type in ("stored", "exit"):
                if event.type == "stored":
                    self.hands.save(named[0], event.data)
                seats.discard(named[0])
        self.hands.saved(within_s=GASP_S)

    def _find_places(self, wanted: words.FindPlaces) -> None:
        """Places for lost ranks by the first rung that will do, or a gang without them."""
        seats = wanted.ranks
        kept = {s: self.crew.seats[s] for s, rank in self._gang.active if s not in seats}
        homes = {seat: self._gang.ranks[seat].home for seat in seats}
        for rung in wanted.rungs:
            if rung == "replace" and (found := self.hands.elsewhere(seats)):
                if self._regrant({**kept, **found}):
                    self._watch_over(list(found.values()))
                    nodes = {seat: grant.node for seat, grant in found.items()}
                    self._apply(words.Moved(nodes=nodes))
                return
            if rung == "in-place" and all(homes.values()):
                self._apply(words.Moved(nodes=homes, rung=rung))
                return
            if rung == "shrink" and len(kept) >= self.job.spec.gang.min:
                if self._regrant(kept):
                    self._watch_over(())  # what was lost keeps nothing any more
                    self._apply(words.Shrunk(keep=tuple(kept)))
                return
            if rung == "restart":
                break
        self._apply(words.Moved(nodes={}))

    def _regrant(self, grants: Mapping[int, Grant]) -> bool:
        if not self.hands.regrant(grants):
            self._over.set()
            return False
        return True

    def _watch_over(self, found: Sequence[Grant]) -> None:
        """New places are part of the gang."""
        self.hands.renew()
        for grant in found:
            self._watch.on(grant.node)

    def _resize(self) -> None:
        """Take the size that was asked for, if the gang can: else it stays as it is."""
        targets = self.tools.store.targets
        asked = targets.asked(self.job.id)
        if asked is None or self._gang.phase != words.Phase.RUNNING:
            return
        targets.drop(self.job.id)
        if not self._gang.may_resize:
            return  # a plain script has the size that it started with
        now = {seat: self.crew.seats[seat] for seat, _ in self._gang.active}
        workers = [grant for grant in asked if not grant.role]
        kept = {seat: grant for seat, grant in now.items() if grant in workers}
        new = [grant for grant in workers if grant not in now.values()]
        first = len(self._gang.ranks)
        joined = dict(enumerate(new, first))
        if joined and not self._regrant({**now, **joined}):
            return
        self._watch_over(new)
        gone = tuple(seat for seat in now if seat not in kept)
        nodes = {seat: grant.node for seat, grant in joined.items()}
        self._apply(words.Resized(leave=gone, join=nodes))
        if gone:
            self.hands.wait_until_gone(set(gone), STOP_GRACE_S)
            self._regrant({**kept, **joined})

    # looking around

    def _look(self, now: float) -> None:
        self.record.pull_logs(self._gang, self.hands.kit.epoch)
        fresh = self.tools.store.workloads.job(self.job.id)
        if fresh is not None and fresh.state == State.STOPPING and self._ended is None:
            self._stop(words.End(reason=EndReason.CANCELLED, detail="cancelled by request"))
        elif fresh is not None and fresh.state == State.YIELDING and self._ended is None:
            self._yield(now)
        elif not self.record.flush(self._gang):
            self._over.set()  # another control owns the job
        else:
            self._resize()
        limit_s, since = self.job.spec.max_duration_s, self.record.started_at
        if limit_s and since and now - since > limit_s and self._ended is None:
            self._stop(words.End(reason=EndReason.TIMED_OUT, detail=f"ran for {limit_s:.0f} s"))
        every_s = self._pace.every_s(len(self.crew.nodes), now)
        self.record.status = replace(self.record.status, checkpoint_every_s=round(every_s, 1))
        self.record.show_note(self._sentry.note if self._gang.phase == words.Phase.RUNNING else "")
        if now - self._checkpoint_at > every_s:
            self._checkpoint_at = now
            self._ask_checkpoint()
        for node, why in self.tools.leave().items():
            self._apply(words.Distrusted(node=node, why=why))
        for seat, life in self.hands.vanished(self._gang, now):
            self._apply(words.Exited(rank=seat, life=life, code=-int(signal.SIGKILL)))

    def _ask_checkpoint(self) -> int | None:
        """Have every rank store the same step, one that none has reached yet; which."""
        if self._gang.phase != words.Phase.RUNNING or not self._gang.is_session:
            return None
        step = max(rank.committed for _, rank in self._gang.active) + 2
        self.hands.tell_all(self._gang, {"type": "store", "step": step})
        return step

    def _yield(self, now: float) -> None:
        """Make room: store a step, end the ranks, wait again."""
        if self._yields_at is None:
            self._yields_at = (self._ask_checkpoint(), now + YIELD_S)
        step, until = self._yields_at
        seats = [seat for seat, _ in self._gang.active]
        kept = self.tools.store.history.newest_checkpoint(self.job.id, seats)
        is_kept = step is None or any(p.step >= step for parts in kept.values() for p in parts)
        if is_kept or now > until:
            self._stop(words.End(reason=EndReason.PREEMPTED, detail="it made room for others"))

    # the end

    def _fail(self, reason: EndReason, detail: str, *, code: str = "exit") -> None:
        now = self.tools.clock.now()
        self._gang, commands = fail(self._gang, reason, detail, now, code=code)
        self.record.log(self._gang)
        self._do(commands)

    def _stop(self, end: words.End) -> None:
        """On purpose: what starts over after it has nothing to recover from."""
        for seat, rank in self._gang.active:
            self.hands.kill(rank.node, seat, rank.life, STOP_GRACE_S)
        self.hands.wait_until_gone(set(self.crew.seats), 2 * STOP_GRACE_S)
        self._gang = replace(self._gang, phase=words.Phase.DONE)
        self.record.log(self._gang)
        self._ended = end

    def _close(self, end: words.End) -> None:
        self.record.pull_logs(self._gang, self.hands.kit.epoch)
        outputs: Mapping[str, str] = {}
        if end.reason == EndReason.DONE:
            try:
                outputs = register_outputs(self.tools, self.job, self.hands.collect(self._gang))
            except NodeLost as lost:
                detail = f"outputs are out of reach: {lost}"
                end = words.End(reason=EndReason.OUTPUT_LOST, detail=detail)
        starts_over = self.record.may_retry(end.reason)
        if starts_over:
            self.hands.forget()  # before the queue can start it anew
        self.record.close(end, outputs, self._gang)
        if not starts_over:
            self.hands.forget()  # only now: whoever finds no trace of a live job starts it
