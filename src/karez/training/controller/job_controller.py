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
from karez.training.controller.event_parser import (
    NewestProcesses,
    gang_from,
    in_same_generation,
    newest_by_rank,
    parse_event,
    view_changes,
)
from karez.training.controller.event_stream import NodeEventStream
from karez.training.controller.gang_allocation import allocation_from
from karez.training.controller.gang_executor import GangExecutor
from karez.training.controller.hang_monitor import HangMonitor
from karez.training.controller.launch_context import StartRefused, devices_of, gather_launch_context
from karez.training.controller.outputs import register_outputs
from karez.training.controller.process_specs import LaunchContext, parse_key
from karez.training.controller.sidecars import Sidecars
from karez.training.controller.status_writer import ControllerDeps, StatusWriter
from karez.training.recovery import takeover, transitions
from karez.training.recovery.checkpoint_interval import CheckpointCadence
from karez.training.recovery.commands import (
    DropReplicas,
    EmergencyCheckpoint,
    EndGang,
    ExitRanks,
    FindPlaces,
    KillRank,
    QueryShards,
    Quiesce,
    RecoveryCommand,
    StartGeneration,
    StartRank,
    WriteReceipt,
)
from karez.training.recovery.controller_state import (
    ControllerState,
    indices_used,
    inherited_fault,
    restore,
)
from karez.training.recovery.events import (
    Exited,
    NodeEvicted,
    NodeGone,
    PlacesFound,
    RecoveryEvent,
    Resized,
    Shrunk,
    Tick,
)
from karez.training.recovery.gang_failure import fail_gang
from karez.training.recovery.hang_detector import HangDetector
from karez.training.recovery.ladder import expected_costs
from karez.training.recovery.limits import Limits
from karez.training.recovery.state import Gang, Phase

PREEMPTION_GRACE_S = 30.0
"""How long a job that makes room may take to store a step; after that it goes back to an older."""
EMERGENCY_CHECKPOINT_S = 10.0
"""How long ranks may take to store what they hold when their gang ends in failure."""
STOP_GRACE_S = 5.0
"""Between SIGTERM and SIGKILL when a job is cancelled. Kubernetes' default is 30 s; ranks here
have nothing to save by then, since every step is kept."""


class JobController:
    """One job's foreman; `run` lives in a thread of its own."""

    def __init__(self, job: Job, allocation: Allocation, token: str, deps: ControllerDeps) -> None:
        """Take a job under a lease."""
        self.job = job
        self.deps = deps
        self._granted = allocation.grants
        self.allocation = allocation_from(allocation.grants, ())
        context = LaunchContext(job=job, epoch=allocation.epoch)
        self.executor = GangExecutor(
            job=job, token=token, deps=deps, allocation=self.allocation, context=context
        )
        self.status = StatusWriter(job, token, deps)
        self.status.held_since = allocation.since
        self._stopped = threading.Event()
        self._events = NodeEventStream(deps.fabric, job.id, self._stopped)
        self._ended: EndGang | None = None
        self._gang = Gang(ranks=())
        self._hang_monitor = HangMonitor(
            job=job, deps=deps, detector=HangDetector(floor_s=deps.settings.hang_s)
        )
        self._looked_at, self._checkpoint_at = 0.0, deps.clock.now()
        began_at = job.started_at or self._checkpoint_at
        self._cadence = CheckpointCadence(fixed_s=deps.settings.checkpoint_s, began_at=began_at)
        self._preempts_at: tuple[int | None, float] | None = None

    def run(self) -> None:
        """Until the job has ended, waits again, or another control owns it."""
        try:
            self.allocation = allocation_from(self._granted, self.executor.processes())
            self.executor.allocation = self.allocation
            self.executor.context = gather_launch_context(
                self.job, self.executor.context.epoch, self.allocation, self.deps
            )
            self._begin_or_adopt()
            while self._ended is None and not self._stopped.is_set():
                self._run_once()
            if self._ended is not None:
                self._close(self._ended)
        except StartRefused as refused:
            self._close(EndGang(reason=refused.reason, detail=str(refused)))
        finally:
            self._stopped.set()

    def stand_down(self) -> None:
        """Stop looking after the job; its processes go on."""
        self._stopped.set()

    # start

    def _begin_or_adopt(self) -> None:
        now, settings = self.deps.clock.now(), self.deps.settings
        limits = Limits(
            quiesce_s=settings.quiesce_s, start_s=settings.start_s, faults=settings.fault_limit
        )
        receipts = self.deps.store.history.receipts(self.job.id)
        self._cadence.faults = len(receipts)
        indices = self.allocation.workers
        known = newest_by_rank(self.executor.processes())
        found = {n: one for n, one in known.items() if n in indices}  # not who was let go
        saved = self.status.load_state()
        before = max(self.status.status.generation, saved.generation if saved else 0)
        born = before if found else before + 1
        used = {*known, *indices_used(saved)}
        gang = gang_from(indices, found, generation=born, limits=limits, now=now, used=used)
        spec, last = self.job.spec, self.status.last_step()
        self._gang = replace(
            restore(gang, saved),
            ladder=spec.ladder,
            ladder_fixed=spec.ladder_fixed,
            costs=expected_costs(receipts),
            fault=None if found else inherited_fault(saved, now, *last),
        )
        for index, grant in self.allocation.workers.items():
            self.status.view(index, node=grant.node, state="starting", devices=devices_of(grant))
        self._sidecars = Sidecars(context=self.executor.context, start=self.executor.start)
        if found:
            self._adopt(found, saved, now)
        else:
            self.status.log(self._gang)
            self.status.write(State.STARTING)
            self._execute_all(takeover.begin(self._gang))
        known_now = self.executor.processes() if found else []
        self._sidecars.adopt(known_now, self.job.spec.gang.roles, self.allocation.of_role)
        for node in self.allocation.nodes:
            self._events.follow(node)

    def _adopt(self, found: NewestProcesses, saved: ControllerState | None, now: float) -> None:
        """Go on with the processes of a foreman that was lost."""
        for index, (_, info) in found.items():
            self.status.view(index, pid=info.pid, state="running" if info.alive else "lost")
        together = in_same_generation(self._gang, found)
        self.executor.find_store()
        self._gang, commands = takeover.adopt(self._gang, together=together, now=now, saved=saved)
        self.status.log(self._gang)
        self._execute_all(commands)
        for index, (attempt, info) in found.items():
            if not info.alive and self._gang.phase != Phase.DRAINING:
                code = -int(signal.SIGKILL) if info.exit_code is None else info.exit_code
                self._apply(Exited(rank=index, attempt=attempt, code=code, error=info.error))

    # the loop

    def _run_once(self) -> None:
        news = self._events.next(within_s=0.1)
        if news is not None:
            node, event = news
            if event is None:
                self._on_node_lost(node)
            else:
                self._on_event(event)
        now = self.deps.clock.now()
        self._apply(Tick())
        hung = self._hang_monitor.check(self._gang, now)
        if hung is not None:
            self._apply(hung)
        if now - self._looked_at > self.deps.settings.tick_s or self._ended:
            self._looked_at = now
            self._check(now)

    def _on_event(self, event: Event) -> None:
        named = parse_key(event.key)
        if named is None:
            self._on_other_event(event)
            return
        index, attempt = named
        current = (
            self._gang.ranks[index].attempt == attempt if index < len(self._gang.ranks) else False
        )
        if current and (changes := view_changes(event)):
            self.status.view(index, **changes)
        self.status.note(index, event, self._gang.generation)
        if event.type == "stored":
            self._cadence.note(float(event.data["held_s"]))
            self.executor.save(index, event.data)
        if (said := parse_event(event, index, attempt)) is not None:
            busy_s = float(event.data.get("busy_s", 0.0))
            self._apply(said)
            self._hang_monitor.on_event(self._gang, said, busy_s, self.deps.clock.now())
        if event.type == "started":
            self.status.show_started(self._gang)

    def _on_node_lost(self, node: NodeId) -> None:
        """Ranks are replaced; a role's workers are not: their gang starts over elsewhere."""
        self.executor.mark_node_lost(node)
        roles = self.allocation.drop_node(node)
        self._apply(NodeGone(node=node))
        if roles and self._ended is None:
            detail = f"node {node} was lost, and with it {', '.join(sorted(roles))}"
            self._fail(EndReason.NODE_LOST, detail, code="node")

    def _on_other_event(self, event: Event) -> None:
        failed = self._sidecars.on_event(event, self.allocation.of_role)
        if failed and self._ended is None:
            self._fail(EndReason.USER_ERROR, failed)
        self.executor.on_store_event(event, self._gang)

    def _apply(self, event: RecoveryEvent) -> None:
        before = self._gang
        now = self.deps.clock.now()
        self._gang, commands = transitions.advance(before, event, now)
        for command in commands:
            if isinstance(command, WriteReceipt):  # before the fault is forgotten
                self._record_recovery(command)
        if (self._gang.generation, self._gang.phase) != (before.generation, before.phase):
            self.status.log(self._gang)
        if commands:
            self._execute_all(commands)
        if self._gang.phase != before.phase:
            self.status.show_phase(self._gang)

    def _execute_all(self, commands: Sequence[RecoveryCommand]) -> None:
        for command in commands:
            self._execute(command)
        if self._ended is None:
            self.executor.open_store(self._gang)

    def _execute(self, command: RecoveryCommand) -> None:
        match command:
            case StartRank():
                grant = self.executor.spawn(self._gang, command)
                where = {"node": grant.node, "devices": devices_of(grant)}
                self.status.view(command.rank, state="starting", **where)
            case Quiesce(rank=index, generation=generation):
                self.executor.send(self._gang, index, {"type": "halt", "generation": generation})
            case StartGeneration():
                self.executor.start_generation(self._gang, command)
            case QueryShards() | DropReplicas():
                self.executor.query_shards(self._gang, command)
            case KillRank(rank=index, node=node, attempt=attempt):
                self.executor.kill(node, index, attempt)
            case FindPlaces():
                self._find_places(command)
            case EmergencyCheckpoint(ranks=indices):
                self._emergency_checkpoint(set(indices))
            case ExitRanks():
                self.executor.send_all(self._gang, {"type": "leave"})
            case EndGang():
                self._ended = command

    def _record_recovery(self, command: WriteReceipt) -> None:
        """What recoveries cost so far decides which rung comes first."""
        self.status.receipt(command, self.executor.context.epoch)
        receipts = self.deps.store.history.receipts(self.job.id)
        self._cadence.faults = len(receipts)
        self._gang = replace(self._gang, costs=expected_costs(receipts))

    def _emergency_checkpoint(self, indices: set[int]) -> None:
        """Wait a while for those that live to store what they hold."""
        for index in indices:
            self.executor.send(self._gang, index, {"type": "gasp"})
        until = self.deps.clock.now() + EMERGENCY_CHECKPOINT_S
        while indices and self.deps.clock.now() < until:
            news = self._events.next(within_s=0.1)
            event = news[1] if news is not None else None
            named = None if event is None else parse_key(event.key)
            if event is not None and named is not None and event.type in ("stored", "exit"):
                if event.type == "stored":
                    self.executor.save(named[0], event.data)
                indices.discard(named[0])
        self.executor.saved(within_s=EMERGENCY_CHECKPOINT_S)

    def _find_places(self, wanted: FindPlaces) -> None:
        """Places for lost ranks by the first rung that will do, or a gang without them."""
        indices = wanted.ranks
        kept = {s: self.allocation.workers[s] for s, rank in self._gang.active if s not in indices}
        homes = {index: self._gang.ranks[index].home for index in indices}
        for rung in wanted.rungs:
            if rung == "replace" and (found := self.executor.find_elsewhere(indices)):
                if self._regrant({**kept, **found}):
                    self._follow_nodes(list(found.values()))
                    nodes = {index: grant.node for index, grant in found.items()}
                    self._apply(PlacesFound(nodes=nodes))
                return
            if rung == "in-place" and all(homes.values()):
                self._apply(PlacesFound(nodes=homes, rung=rung))
                return
            if rung == "shrink" and len(kept) >= self.job.spec.gang.min:
                if self._regrant(kept):
                    self._follow_nodes(())  # what was lost keeps nothing any more
                    self._apply(Shrunk(keep=tuple(kept)))
                return
            if rung == "restart":
                break
        self._apply(PlacesFound(nodes={}))

    def _regrant(self, grants: Mapping[int, Grant]) -> bool:
        if not self.executor.regrant(grants):
            self._stopped.set()
            return False
        return True

    def _follow_nodes(self, found: Sequence[Grant]) -> None:
        """New places are part of the gang."""
        self.executor.renew()
        for grant in found:
            self._events.follow(grant.node)

    def _resize(self) -> None:
        """Take the size that was asked for, if the gang can: else it stays as it is."""
        targets = self.deps.store.resize_requests
        asked = targets.requested(self.job.id)
        if asked is None or self._gang.phase != Phase.RUNNING:
            return
        targets.drop(self.job.id)
        if not self._gang.may_resize:
            return  # a plain script has the size that it started with
        now = {index: self.allocation.workers[index] for index, _ in self._gang.active}
        workers = [grant for grant in asked if not grant.role]
        kept = {index: grant for index, grant in now.items() if grant in workers}
        new = [grant for grant in workers if grant not in now.values()]
        first = len(self._gang.ranks)
        joined = dict(enumerate(new, first))
        if joined and not self._regrant({**now, **joined}):
            return
        self._follow_nodes(new)
        gone = tuple(index for index in now if index not in kept)
        nodes = {index: grant.node for index, grant in joined.items()}
        self._apply(Resized(leave=gone, join=nodes))
        if gone:
            self.executor.wait_until_gone(set(gone), STOP_GRACE_S)
            self._regrant({**kept, **joined})

    # looking around

    def _check(self, now: float) -> None:
        self.status.pull_logs(self._gang, self.executor.context.epoch)
        fresh = self.deps.store.workloads.job(self.job.id)
        if fresh is not None and fresh.state == State.STOPPING and self._ended is None:
            self._stop(EndGang(reason=EndReason.CANCELLED, detail="cancelled by request"))
        elif fresh is not None and fresh.state == State.PREEMPTING and self._ended is None:
            self._preempt(now)
        elif not self.status.flush(self._gang):
            self._stopped.set()  # another control owns the job
        else:
            self._resize()
        limit_s, since = self.job.spec.max_duration_s, self.status.started_at
        if limit_s and since and now - since > limit_s and self._ended is None:
            self._stop(EndGang(reason=EndReason.TIMED_OUT, detail=f"ran for {limit_s:.0f} s"))
        every_s = self._cadence.every_s(len(self.allocation.nodes), now)
        self.status.status = replace(self.status.status, checkpoint_every_s=round(every_s, 1))
        self.status.show_note(self._hang_monitor.note if self._gang.phase == Phase.RUNNING else "")
        if now - self._checkpoint_at > every_s:
            self._checkpoint_at = now
            self._ask_checkpoint()
        for node, why in self.deps.nodes_to_avoid().items():
            self._apply(NodeEvicted(node=node, why=why))
        for index, attempt in self.executor.vanished(self._gang, now):
            self._apply(Exited(rank=index, attempt=attempt, code=-int(signal.SIGKILL)))

    def _ask_checkpoint(self) -> int | None:
        """Have every rank store the same step, one that none has reached yet; which."""
        if self._gang.phase != Phase.RUNNING or not self._gang.is_session:
            return None
        step = max(rank.committed for _, rank in self._gang.active) + 2
        self.executor.send_all(self._gang, {"type": "store", "step": step})
        return step

    def _preempt(self, now: float) -> None:
        """Make room: store a step, end the ranks, wait again."""
        if self._preempts_at is None:
            self._preempts_at = (self._ask_checkpoint(), now + PREEMPTION_GRACE_S)
        step, until = self._preempts_at
        indices = [index for index, _ in self._gang.active]
        kept = self.deps.store.history.newest_checkpoint(self.job.id, indices)
        is_kept = step is None or any(p.step >= step for parts in kept.values() for p in parts)
        if is_kept or now > until:
            self._stop(EndGang(reason=EndReason.PREEMPTED, detail="it made room for others"))

    # the end

    def _fail(self, reason: EndReason, detail: str, *, code: str = "exit") -> None:
        now = self.deps.clock.now()
        self._gang, commands = fail_gang(self._gang, reason, detail, now, code=code)
        self.status.log(self._gang)
        self._execute_all(commands)

    def _stop(self, end: EndGang) -> None:
        """On purpose: what starts over after it has nothing to recover from."""
        for index, rank in self._gang.active:
            self.executor.kill(rank.node, index, rank.attempt, STOP_GRACE_S)
        self.executor.wait_until_gone(set(self.allocation.workers), 2 * STOP_GRACE_S)
        self._gang = replace(self._gang, phase=Phase.DONE)
        self.status.log(self._gang)
        self._ended = end

    def _close(self, end: EndGang) -> None:
        self.status.pull_logs(self._gang, self.executor.context.epoch)
        outputs: Mapping[str, str] = {}
        if end.reason == EndReason.DONE:
            try:
                outputs = register_outputs(self.deps, self.job, self.executor.collect(self._gang))
            except NodeLost as lost:
                detail = f"outputs are out of reach: {lost}"
                end = EndGang(reason=EndReason.OUTPUT_LOST, detail=detail)
        starts_over = self.status.may_retry(end.reason)
        if starts_over:
            self.executor.purge()  # before the queue can start it anew
        self.status.close(end, outputs, self._gang)
        if not starts_over:
            self.executor.purge()  # only now: whoever finds no trace of a live job starts it
