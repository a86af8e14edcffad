"""The runtime of a rank, between its user's code and its gang."""

from contextlib import AbstractContextManager, suppress

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from karez.core.errors import BadRequest
from karez.core.messages.orders import (
    CutLinkOrder,
    DropReplicasOrder,
    EmergencyCheckpointOrder,
    ExitOrder,
    FlipBitOrder,
    Order,
    QuiesceOrder,
    StoreCheckpointOrder,
)
from karez.core.messages.reports import CommitReport, FinishedReport
from karez.core.processes import Activity
from karez.runtime.device_staging import DeviceStaging
from karez.runtime.gang_collectives import GangCollectives
from karez.runtime.generation_change import BuildModel, GenerationChange
from karez.runtime.gradient_allreduce import GradientAllReduce
from karez.runtime.host_clock import monotonic_s, thread_s
from karez.runtime.membership import Membership
from karez.runtime.process_group import ProcessGroup, lost_a_peer
from karez.runtime.rank_environment import RankEnvironment
from karez.runtime.rank_reporter import RankReporter
from karez.runtime.rank_state import RankState
from karez.runtime.replica_digest import inject_bit_error
from karez.runtime.restore import restart_process
from karez.runtime.session_options import SessionOptions
from karez.runtime.shards import ShardedOptimizer
from karez.runtime.snapshot_cadence import SnapshotCadence
from karez.runtime.snapshot_store import SnapshotStore
from karez.runtime.tracked import History, Stateful, Tracked
from karez.runtime.training_state import pack, restore_extra


class RankRuntime:
    """Joins a rank to its gang, keeps its state, and restores it after a fault."""

    def __init__(
        self,
        environment: RankEnvironment,
        history: History,
        group: ProcessGroup,
        *,
        devices: tuple[torch.device, ...],
        options: SessionOptions,
    ) -> None:
        """Connect to the node agent, if there is one."""
        self.state = RankState(
            rank=environment.rank,
            world=environment.world,
            history=history,
            cadence=SnapshotCadence(fixed=options.snapshot_every),
        )
        self._has_kept = False
        is_staged = len(devices) == 1 and devices[0].type != "cpu"
        self._staging = DeviceStaging(devices[0]) if is_staged else None
        self.reporter = RankReporter(self.state)
        self._environment, self._group, self._replays = environment, group, options.replays
        self._collectives = GangCollectives(
            state=self.state, reporter=self.reporter, group=group, replays=options.replays
        )
        self._gradients = GradientAllReduce(
            group=group,
            enter=self._collectives.wait_for_peers,
            run_collective=self._collectives.run,
            on_bad_gradients=self._collectives.report_bad_gradients,
            numbers=self._collectives.numbers,
            on_numbers=self._collectives.take_numbers,
        )
        self._generations = GenerationChange(
            state=self.state,
            reporter=self.reporter,
            group=group,
            gradients=self._gradients,
            history=history,
            devices=devices,
            seed=options.seed,
        )
        if self.is_in_cloud:
            self.reporter.connect(environment, self._on_order)

    @property
    def is_in_cloud(self) -> bool:
        """Whether a node agent passes messages between this rank and a job controller."""
        return bool(self._environment.steward)

    def join(self, tracked: Tracked) -> None:
        """Track objects; on return they hold the state of the last common step."""
        self.state.tracked = tracked
        if tracked.is_sharded:
            self.state.cadence.fixed = 1  # a change of size may need the shards of the last step
        optimizer = tracked.optimizer
        if isinstance(optimizer, ShardedOptimizer):
            optimizer.collect = self._collectives.gather
        if self.is_in_cloud:
            self._open_snapshots().tracked = tracked
            self._generations.quiesce(0)
        elif isinstance(optimizer, ShardedOptimizer):
            optimizer.spread(0, 1)

    def join_by(self, make: BuildModel, others: dict[str, Stateful]) -> None:
        """Track what `make` builds within the group of each generation; see `join`."""
        self._generations.make, self._generations.others = make, others
        self._group.has_other_waits = True
        self.state.cadence.fixed = 1  # as in `join`
        if self.is_in_cloud:
            self._open_snapshots()
            self._generations.quiesce(0)
        else:
            self._group.rebuild(Membership(generation=0, rank=0, world=1, store=""))
            self._generations.build()

    def keep_start(self) -> None:
        """Keep what the program changed since `join` as part of step 0, such as a new seed."""
        state = self.state
        if state.step == 0 and state.tracked is not None and state.snapshots is not None:
            with suppress(RuntimeError):  # the generation is over: the first step will find that
                self._collectives.wait_for_peers()  # else they might be left with what was before
                state.snapshots.settle(0, state.tag, moved=True)

    def also_keep(self, name: str, other: Stateful) -> None:
        """Track one more object, and restore its state if there is one."""
        state = self.state
        state.need_tracked().others[name] = other
        found = None if state.snapshots is None else state.snapshots.find(state.step)
        if found is not None:
            restore_extra(found.per_rank, name, other)

    def average_grads_of(self, model: torch.nn.Module) -> None:
        """Average gradients over the ranks at the end of each backward."""
        state = self.state
        self._gradients.watch(model, lambda: not state.is_spoiled and state.tracked is not None)

    def accumulating(self) -> AbstractContextManager[None]:
        """Let backwards accumulate gradients without averaging them over the ranks."""
        return self._gradients.paused()

    def gather(self, row: torch.Tensor) -> torch.Tensor:
        """Put the ranks' rows in one. Without a peer it is the own one, and the step is spoiled."""
        if self.state.world == 1 or self.state.tracked is None:
            return row
        rows = self._collectives.gather(row)
        return row if rows is None else rows

    def may_enter(self) -> bool:
        """Apply Rule R before a step with collectives of its own; False: begin the step again."""
        if self._generations.make is None:
            return True  # the averaging of its gradients waits
        try:
            self._collectives.wait_for_peers()
        except RuntimeError as error:
            self.reporter.report_collective_failure(error)
            self.heal_if_needed()
            return False
        return True

    def complete(self, loss: float) -> None:
        """Complete a step: write its snapshot, if one is due, and report it."""
        state = self.state
        state.step += 1
        began_s = thread_s()  # what waits for a processor is no cost of the snapshot
        if state.tracked is not None and state.snapshots is not None:
            self._keep(state.tracked, state.snapshots)
        snapshot_s = thread_s() - began_s + state.timer.copied_s
        if state.world == 1:  # nobody to agree with
            state.cadence.agree([state.cadence.wanted])
        busy_s = round(state.timer.lap_s(), 6)
        is_typical = self._has_kept and state.cadence.count > 1  # the first makes its file
        if self._has_kept:
            state.timer.copied_s = 0.0
        state.cadence.took(
            max(0.0, state.timer.step_s - snapshot_s), snapshot_s if is_typical else 0.0
        )
        self.reporter.send(
            CommitReport(
                generation=state.generation, step=state.step, loss=float(loss), busy_s=busy_s
            )
        )

    def _keep(self, tracked: Tracked, snapshots: SnapshotStore) -> None:
        """Write a snapshot if one is due, and a checkpoint file if one is wanted."""
        state, agent = self.state, self.reporter.agent
        self._has_kept = state.cadence.is_due(state.step)
        is_agreed = state.world == 1 and snapshots.is_store_wanted
        is_stored = (is_agreed or snapshots.store_at == state.step) and agent is not None
        if not self._has_kept and not is_stored:
            return
        began_s = monotonic_s()
        snapshots.writer.wait()
        state.timer.copied_s += monotonic_s() - began_s
        is_held = isinstance(tracked.optimizer, torch.optim.Optimizer)
        packed = pack(tracked, self._staging if is_held else None)
        if self._has_kept:
            snapshots.snapshot(state.step, state.tag, packed)
        if is_stored and agent is not None:
            snapshots.store(state.step, state.tag, packed, agent)

    def stop(self) -> None:
        """End the training after a step that all ranks agree on. Raises BadRequest."""
        state = self.state
        if self._generations.make is not None and state.world > 1:
            raise BadRequest(
                problem="run.stop() is told with averaged gradients, and run.build() averages none",
                fix="Have all ranks gather what they decide by, and leave the loop alike.",
            )
        state.wants_stop_after = state.wants_stop_after or state.step + 1
        if state.world == 1:
            state.agree_to_stop([state.stop_wish])

    def report_bad_loss(self, why: str) -> None:
        """Spoil the step and report its bad loss."""
        self.reporter.report_bad_loss(why, self._replays)

    @property
    def is_aborted(self) -> bool:
        """Whether the collectives were aborted: then a device may be stopped, and is not lost."""
        return self._group.is_aborted

    def is_broken_by(self, error: RuntimeError) -> bool:
        """Whether an error is that of a collective with a lost peer."""
        return self.is_in_cloud and (self.state.is_generation_over or lost_a_peer(error))

    def all_here(self, *, is_trained: bool = True) -> bool:
        """Meet all other ranks at the end; False if one was lost or differs: state was restored."""
        if self._group.world > 1 and not self._collectives.meet_at_end(is_trained=is_trained):
            self.heal_if_needed()
            return False
        return True

    def heal_if_needed(self) -> None:
        """Wait for the next generation and restore, if the step is spoiled or this one ended."""
        if self.is_in_cloud and (self.state.is_spoiled or self.state.is_generation_over):
            self._generations.quiesce(self.state.wanted_generation)

    def finish(self) -> None:
        """Report that all steps are done, and serve until every rank has reported so.

        A rank that tracked nothing is in no generation: it ends as a plain script does.
        """
        if not self.is_in_cloud or self.state.generation == 0:
            self._group.shutdown()
            return
        self.reporter.send(FinishedReport(generation=self.state.generation))
        self.reporter.post(Activity.QUIESCED)
        while True:
            match self.reporter.next_order():
                case ExitOrder():
                    self._group.shutdown()
                    return
                case QuiesceOrder(generation=generation):
                    self._rejoin(generation)
                case _:
                    continue  # what cannot wait was done as it came, by `_on_order`

    def _rejoin(self, generation: int) -> None:
        """Take part in one more generation after the last step."""
        done = self.state.step
        self._generations.quiesce(generation)
        while self.state.step >= done and not self.all_here(is_trained=False):
            continue
        if self.state.step < done:  # the loop of the user's code has ended
            restart_process()
        self.reporter.send(FinishedReport(generation=self.state.generation))

    def _abort(self) -> None:
        if self._group.stops_device and self.state.snapshots is not None:
            self.state.snapshots.writer.cancel()
        self._group.abort()

    def _open_snapshots(self) -> SnapshotStore:
        snapshots = self.state.snapshots = SnapshotStore(self._environment)
        if self._staging is not None:
            # of any optimizer: the tracked one may be the wrapper of another
            register_optimizer_step_pre_hook(lambda *_: snapshots.writer.hold_device())
        return snapshots

    def _on_order(self, order: Order) -> None:
        """Handle what cannot wait for the end of a step, on the agent connection's thread."""
        state = self.state
        match order:
            case QuiesceOrder():  # generation before abort: see GenerationChange._form_group
                state.wanted_generation = order.generation
                self._abort()
            case CutLinkOrder():
                self._abort()  # as if the network had failed: nothing is reported
            case FlipBitOrder() if state.tracked is not None:
                inject_bit_error(state.tracked.model)
            case _ if state.snapshots is not None:
                self._on_snapshot_order(order, state.snapshots)

    def _on_snapshot_order(self, order: Order, snapshots: SnapshotStore) -> None:
        agent = self.reporter.agent
        match order:
            case StoreCheckpointOrder():
                snapshots.is_store_wanted = True
                if self._generations.make is not None:  # no gradients of ours to agree by
                    snapshots.store_at = order.step
            case EmergencyCheckpointOrder() if agent is not None:
                snapshots.emergency_checkpoint(self.state.tag, agent)
            case DropReplicasOrder():
                snapshots.replicas.drop(order.departed, order.replica_servers)
            case _:
                return
