"""One run of a gang under one controller: applies events and executes the commands that follow."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from karez.core.jobs import Job
from karez.core.messages.orders import ExitOrder, QuiesceOrder
from karez.core.workloads import EndReason
from karez.node_events.stream import NodeEventStream
from karez.training.controller.checkpoint_saver import CheckpointSaver
from karez.training.controller.controller_deps import ControllerDeps
from karez.training.controller.emergency_checkpoint import take_emergency_checkpoint
from karez.training.controller.gang_allocation import GangAllocation
from karez.training.controller.gang_executor import GangExecutor
from karez.training.controller.gang_placer import GangPlacer
from karez.training.controller.generation_starter import GenerationStarter
from karez.training.controller.hang_monitor import HangMonitor
from karez.training.controller.launch_context import devices_of
from karez.training.controller.own_checkpoints import OwnCheckpoints
from karez.training.controller.sidecars import Sidecars
from karez.training.controller.status_writer import StatusWriter
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
from karez.training.recovery.deadlines import next_deadline
from karez.training.recovery.events import RecoveryEvent
from karez.training.recovery.gang_failure import fail_gang
from karez.training.recovery.ladder import expected_costs
from karez.training.recovery.state import Gang
from karez.training.recovery.transitions import advance


@dataclass(slots=True, kw_only=True)
class GangRun:
    """The present state of one gang, with all that acts on it."""

    job: Job
    deps: ControllerDeps
    status: StatusWriter
    executor: GangExecutor
    events: NodeEventStream
    placer: GangPlacer
    starter: GenerationStarter
    saver: CheckpointSaver
    own_checkpoints: OwnCheckpoints
    sidecars: Sidecars
    hang_monitor: HangMonitor
    cadence: CheckpointCadence
    stopped: threading.Event
    """Set: this controller acts no more, and the processes go on."""
    gang: Gang = field(default_factory=lambda: Gang(ranks=()))
    end: EndGang | None = None
    """Why the run has ended; None: it has not."""

    @property
    def allocation(self) -> GangAllocation:
        """The grants of the gang."""
        return self.executor.allocation

    @property
    def is_over(self) -> bool:
        """Whether this controller has nothing more to do for the gang but to close the run."""
        return self.end is not None or self.stopped.is_set()

    def next_deadline(self, now: float) -> float:
        """When something is due although no node reports anything; infinite: never."""
        return min(next_deadline(self.gang, now), self.hang_monitor.due_at(self.gang, now))

    def apply(self, event: RecoveryEvent) -> None:
        """Advance the gang by an event, record the transition, and execute the commands."""
        before = self.gang
        self.gang, commands = advance(before, event, self.deps.clock.now())
        for command in commands:
            if isinstance(command, WriteReceipt):  # the log below no longer has the fault
                self._record_recovery(command)
        if (self.gang.generation, self.gang.phase) != (before.generation, before.phase):
            self.status.log(self.gang)
        if commands:
            self.execute(commands)
        if self.gang.phase != before.phase:
            self.status.show_phase(self.gang)

    def execute(self, commands: Sequence[RecoveryCommand]) -> None:
        """Execute commands in order, and open a rendezvous store if the gang needs one."""
        for command in commands:
            self._execute(command)
        if self.end is None:
            self.starter.rendezvous.open(self.gang)

    def fail(self, reason: EndReason, detail: str, *, code: str = "exit") -> None:
        """End the gang because of a failure outside its ranks."""
        now = self.deps.clock.now()
        self.gang, commands = fail_gang(self.gang, reason, detail, now, code=code)
        self.status.log(self.gang)
        self.execute(commands)

    def _execute(self, command: RecoveryCommand) -> None:
        match command:
            case StartRank() | KillRank() | Quiesce() | ExitRanks():
                self._execute_on_ranks(command)
            case StartGeneration():
                self.starter.start(self.gang, command)
            case QueryShards() | DropReplicas():
                self.starter.query_shards(self.gang, command)
            case FindPlaces():
                self._find_places(command)
            case EmergencyCheckpoint(ranks=indices):
                take_emergency_checkpoint(
                    self.gang, indices, self.executor, self.events, self.saver
                )
            case EndGang():
                self.end = command
            case WriteReceipt():
                pass  # written before the transition is logged, in `apply`

    def _execute_on_ranks(self, command: StartRank | KillRank | Quiesce | ExitRanks) -> None:
        match command:
            case StartRank(rank=index):
                grant = self.executor.spawn(self.gang, command)
                devices = devices_of(grant)
                self.status.view(index, state="starting", node=grant.node, devices=devices)
            case KillRank(rank=index, node=node, attempt=attempt):
                self.executor.kill(node, index, attempt)
            case Quiesce(rank=index, generation=generation):
                self.executor.send(self.gang, index, QuiesceOrder(generation=generation))
            case ExitRanks():
                self.executor.send_all(self.gang, ExitOrder())

    def _find_places(self, command: FindPlaces) -> None:
        self.own_checkpoints.store()  # what is on a node that ranks leave is laid out elsewhere
        event = self.placer.find_places(self.gang, command)
        if event is None:
            self.stopped.set()  # another control owns the job
        else:
            self.apply(event)

    def _record_recovery(self, command: WriteReceipt) -> None:
        """Write the receipt; what recoveries cost so far decides which rung comes first."""
        self.status.receipt(
            command,
            self.executor.context.epoch,
            is_emulated=self.executor.allocation.is_emulated,
        )
        receipts = self.deps.store.history.receipts(self.job.id)
        self.cadence.faults = len(receipts)
        self.gang = replace(self.gang, costs=expected_costs(receipts))
