"""What the store and the log folder are told about one job while its foreman works."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from karez.core.codec import to_text
from karez.core.gangs import NodeAffinity
from karez.core.grants import Grant
from karez.core.jobs import Job
from karez.core.nodes import NodeId
from karez.core.ports import Blobs, Clock, Fabric, LogSink, NodeLost
from karez.core.processes import Event
from karez.core.receipts import Receipt, chained
from karez.core.recovery import Transition
from karez.core.resource_requests import ResourceRequest
from karez.core.settings import Settings
from karez.core.stores.store import Store
from karez.core.usage import MetricRow
from karez.core.workloads import EndReason, RankView, State, Status, WorkloadKind
from karez.training.controller.process_specs import rank_key
from karez.training.recovery.commands import EndGang, WriteReceipt
from karez.training.recovery.controller_state import ControllerState, capture, parse_state
from karez.training.recovery.state import HEALING, Gang, Phase

RESTART_LIMIT = 3
"""Restarts from a checkpoint that a training job gets by itself, as torchrun's --max-restarts=3
in its documentation's examples."""
LOG_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerDeps:
    """What foremen work with."""

    store: Store
    fabric: Fabric
    blobs: Blobs
    clock: Clock
    settings: Settings
    logs: LogSink
    find: Callable[[ResourceRequest, int, frozenset[NodeId], NodeAffinity], Sequence[Grant]]
    """Free devices for more workers, off these nodes, where the gang may stand."""
    secrets: Callable[[str, Sequence[str]], Mapping[str, str]]
    recipes: Mapping[str, str] = field(default_factory=dict)
    """Recipe -> `module:function`, of the entry points that are installed."""
    sign: Callable[[Receipt], Receipt] = lambda receipt: receipt
    """Puts the cloud's signature on a receipt."""
    nodes_to_avoid: Callable[[], Mapping[NodeId, str]] = dict
    """Nodes that are not trusted any more -> why."""


class StatusWriter:
    """One job's paper: every write is guarded by the lease's token."""

    def __init__(self, job: Job, token: str, deps: ControllerDeps) -> None:
        """Continue from what the store knows."""
        self.job = job
        self.status: Status = replace(job.status, reason="")
        self.started_at = job.started_at
        self.held_since = deps.clock.now()
        """When its devices were granted; set by the foreman."""
        self._token = token
        self._tools = deps
        self._metrics: list[MetricRow] = []
        self._note = ""
        self._views: dict[int, RankView] = {}

    def view(self, index: int, **changes: Any) -> None:
        """Change how a rank is shown."""
        view = self._views.get(index) or RankView(rank=index, node=NodeId(""))
        self._views[index] = replace(view, **changes)

    def note(self, index: int, event: Event, generation: int) -> None:
        """Keep what an event says about progress."""
        if event.type == "total":
            self.status = replace(self.status, total_steps=int(event.data["steps"]))
        elif event.type == "resumed":
            born = int(event.data["generation"])
            self._metrics += [
                MetricRow(
                    step=int(step), rank=index, loss=float(loss), at=event.at, generation=born
                )
                for step, loss in event.data["losses"]
            ]
        elif event.type == "commit":
            step, loss = int(event.data["step"]), float(event.data["loss"])
            born = int(event.data["generation"])
            self._metrics.append(
                MetricRow(step=step, rank=index, loss=loss, at=event.at, generation=born)
            )
            if born == generation:
                self.status = replace(self.status, step=step, loss=loss)

    def write(self, state: State | None = None) -> bool:
        """Write state and status. False: the lease is lost, or the job is being stopped."""
        now = self._tools.clock.now()
        if state == State.RUNNING and self.started_at is None:
            self.started_at = now
        return self._tools.store.workloads.update(
            self.job.id, token=self._token, state=state, status=self.status, at=now
        )

    def flush(self, gang: Gang) -> bool:
        """Write metrics and views. False: the lease is lost."""
        self._tools.store.history.add_metrics(self.job.id, self._metrics)
        self._metrics.clear()
        self.status = replace(self.status, ranks=self._seen(gang))
        return self.write()

    def load_state(self) -> ControllerState | None:
        """What the foreman before this one wrote down."""
        newest = self._tools.store.history.transitions(self.job.id, newest=1)
        return parse_state(newest[0].body) if newest else None

    def last_step(self) -> tuple[int, float]:
        """The last step that the store knows of, and when it was complete: now, if none is."""
        rows = self._tools.store.history.metrics(self.job.id, after=max(-1, self.status.step - 1))
        newest = max(rows, key=lambda row: (row.generation, row.step), default=None)
        if newest is None:
            return self.status.step, self._tools.clock.now()
        return newest.step, newest.at  # steps of an earlier generation may have been given up

    def log(self, gang: Gang) -> None:
        """Write a transition down before anybody is told of it: no generation is used twice."""
        self.status = replace(self.status, generation=gang.generation)
        self._tools.store.history.add_transition(
            self.job.id,
            Transition(
                at=self._tools.clock.now(),
                generation=gang.generation,
                phase=gang.phase,
                body=to_text(capture(gang)),
            ),
        )

    def show_note(self, note: str) -> None:
        """Say what holds a gang up that is at work; written with the next flush."""
        if note or (self._note and self.status.reason == self._note):
            self.status = replace(self.status, reason=note)
        self._note = note

    def show_phase(self, gang: Gang) -> None:
        """Write the job's state as the gang's phase has it."""
        if gang.phase == Phase.RUNNING:
            self.status = replace(self.status, reason="")
            self.write(State.RUNNING)
        elif gang.fault is not None and gang.phase in HEALING:
            self.status = replace(self.status, reason=f"{gang.phase}: {gang.fault.cause}")
            self.write(State.RECOVERING)
        elif gang.phase == Phase.RESUMING:
            self.write(State.RUNNING)

    def show_started(self, gang: Gang) -> None:
        """A plain job runs as soon as its process does; a session once it resumes."""
        if not gang.is_session and self.job.spec.kind == WorkloadKind.BATCH:
            self.write(State.RUNNING)

    def receipt(self, command: WriteReceipt, epoch: int) -> None:
        """Record a recovery, signed and chained to the one before it."""
        fault, history = command.fault, self._tools.store.history
        receipt = Receipt(
            id=f"rcp-{self.job.id.removeprefix('job-')}-{command.generation}",
            job=self.job.id,
            generation=command.generation,
            cause=fault.cause,
            ranks=fault.ranks,
            rung=fault.rung,
            source=fault.source,
            detected_at=fault.detected_at,
            confirmed_at=fault.confirmed_at,
            decided_at=fault.decided_at,
            restored_at=fault.restored_at,
            resumed_at=command.resumed_at,
            step_before=fault.step_before,
            step_restored=fault.step_restored,
            epoch=epoch,
            code=fault.code,
            nodes=fault.nodes,
            skipped=fault.skipped,
        )
        known = history.receipts(self.job.id)
        if all(other.id != receipt.id for other in known):
            history.add_receipt(self._tools.sign(chained(receipt, known[-1] if known else None)))

    def pull_logs(self, gang: Gang, epoch: int) -> None:
        """Copy what ranks wrote since the last time; a process that has just ended too."""
        logs, job, fabric = self._tools.logs, self.job.id, self._tools.fabric
        for index, rank in gang.active:
            for attempt in range(max(1, rank.attempt - 1), rank.attempt + 1):
                name = f"rank-{index}.{epoch}.{attempt}"
                try:
                    while rank.node:
                        at = logs.size(job, name)
                        key = rank_key(job, index, attempt)
                        data = fabric.read_log(rank.node, key, at, LOG_PIECE_BYTES)
                        if data:
                            logs.append(job, name, data)
                        if len(data) < LOG_PIECE_BYTES:
                            break
                except NodeLost:
                    continue

    def close(self, end: EndGang, outputs: Mapping[str, str], gang: Gang) -> None:
        """End the job, or queue it again where its retry rules say so."""
        now, store = self._tools.clock.now(), self._tools.store
        store.history.add_metrics(self.job.id, self._metrics)
        status = replace(
            self.status,
            end=end.reason,
            reason=end.detail,
            outputs=outputs or self.status.outputs,
            ranks=self._seen(gang),
        )
        if self.may_retry(end.reason):
            count = status.retries + (end.reason != EndReason.PREEMPTED)
            ran_s = status.ran_s + max(0.0, now - self.held_since)
            again = replace(status, retries=count, end=None, ranks=(), ran_s=ran_s)
            if store.workloads.requeue(self.job.id, self._token, again, now=now):
                return
        states = {EndReason.DONE: State.SUCCEEDED, EndReason.CANCELLED: State.CANCELLED}
        state = states.get(end.reason, State.FAILED)
        store.workloads.end(self.job.id, self._token, state, status, now=now)

    def may_retry(self, reason: EndReason) -> bool:
        """Whether the job starts over after such an end."""
        if reason == EndReason.PREEMPTED:
            return True
        spec = self.job.spec
        limit, causes = spec.retry.limit, spec.retry.causes
        if spec.kind == WorkloadKind.TRAIN and "restart" in spec.ladder:
            limit = max(limit, RESTART_LIMIT)
        return reason in causes and self.status.retries < limit

    def _seen(self, gang: Gang) -> tuple[RankView, ...]:
        return tuple(self._views[index] for index, _ in gang.active if index in self._views)
