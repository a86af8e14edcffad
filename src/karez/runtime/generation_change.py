"""The change of a rank from one generation of its gang to the next."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from karez.core.messages.orders import (
    ExitOrder,
    QueryShardsOrder,
    QuiesceOrder,
    StartGenerationOrder,
)
from karez.core.messages.reports import ReadyReport, ResumedReport
from karez.core.processes import Activity
from karez.runtime.device import raise_if_lost
from karez.runtime.gradient_allreduce import GradientAllReduce
from karez.runtime.membership import Membership
from karez.runtime.process_group import ProcessGroup
from karez.runtime.rank_reporter import RankReporter
from karez.runtime.rank_state import RankState
from karez.runtime.reshard import is_fixed_size
from karez.runtime.restore import RestorePoint, Restorer
from karez.runtime.tracked import History, Stateful, Tracked

BuildModel = Callable[[], tuple[torch.nn.Module, torch.optim.Optimizer]]


@dataclass(slots=True, kw_only=True)
class GenerationChange:
    """Leaves the group of an ended generation, joins that of the next, and restores the state."""

    state: RankState
    reporter: RankReporter
    group: ProcessGroup
    gradients: GradientAllReduce
    history: History
    devices: tuple[torch.device, ...]
    seed: int
    make: BuildModel | None = None
    """Builds model and optimizer within the group, where they are bound to it."""
    others: dict[str, Stateful] = field(default_factory=dict)
    """Objects to track beside what `make` builds."""

    def quiesce(self, generation: int) -> None:
        """Leave the group, report what can be restored, and return once the next has started.

        Raises:
            SystemExit: The job controller needs this rank no more.
        """
        snapshots = self.state.snapshots
        if snapshots is not None:
            with suppress(RuntimeError):  # the device was stopped: that snapshot is not there
                snapshots.writer.wait()
        self.group.shutdown()
        self.reporter.post(Activity.QUIESCED)
        self._report_ready(generation)
        while True:
            match self.reporter.next_order():
                case QuiesceOrder(generation=generation):
                    self._report_ready(generation)
                case QueryShardsOrder() as query if snapshots is not None:
                    replicas = snapshots.replicas
                    found = replicas.whole_replicas(query.departed, query.replica_servers)
                    self._report_ready(query.generation, found)
                case ExitOrder():
                    raise SystemExit(0)
                case StartGenerationOrder() as order:
                    is_wanted = order.generation >= self.state.wanted_generation
                    if is_wanted and self._start(order):
                        return
                case _:
                    continue  # done as it came, by RankRuntime

    def build(self) -> None:
        """Build model and optimizer within the group, and keep their state from now on."""
        assert self.make is not None
        model, optimizer = self.make()
        self.state.tracked = Tracked(
            model=model,
            optimizer=optimizer,
            others=self.others,
            devices=self.devices,
            is_built=True,
        )
        if self.state.snapshots is not None:
            self.state.snapshots.tracked = self.state.tracked

    def _report_ready(
        self, generation: int, found: Mapping[int, Mapping[int, int]] | None = None
    ) -> None:
        state = self.state
        sources = {0: ("start", 0)}
        if state.snapshots is not None:
            sources = state.snapshots.restorable(is_new=not state.has_state)
        is_sharded = state.tracked is not None and state.tracked.is_sharded
        report = ReadyReport(
            generation=generation,
            sharded=is_sharded or self.make is not None,  # before the first build
            steps={step: source for step, (source, _) in sources.items()},
            created_generation={step: born for step, (_, born) in sources.items() if born},
            shards_found=found,
            snapshot_every=state.cadence.every,
        )
        self.reporter.send(report)

    def _start(self, order: StartGenerationOrder) -> bool:
        """Form the group and restore; False: that failed too, and the rank must go on waiting."""
        previous_rank, target = self.state.rank, RestorePoint.from_order(order)
        self._enter(order)
        try:
            self._form_group(order)
            self._restore(order, target)
        except RuntimeError as error:
            for device in () if self.group.is_aborted else self.devices:
                raise_if_lost(device, error)
            self.reporter.report_failure(error)
            return False
        self._resume(target, is_moved=previous_rank != self.state.rank)
        return True

    def _enter(self, order: StartGenerationOrder) -> None:
        """Take over the generation and this rank's place in it."""
        state = self.state
        state.generation = order.generation
        self.group.arm()
        state.rank, state.world = order.rank, order.world
        state.skipped_batches = order.skipped_batches
        state.is_spoiled = False
        state.timer.reset()
        self.gradients.begin()
        state.compares_replicas = order.compares_replicas

    def _form_group(self, order: StartGenerationOrder) -> None:
        state = self.state
        if state.is_generation_over:  # its abort may have come before `arm`
            raise RuntimeError("the generation is over")
        if state.world > 1 or self.make is not None:
            store = order.rendezvous if state.world > 1 else ""
            member = Membership(
                generation=state.generation, rank=state.rank, world=state.world, store=store
            )
            self.group.rebuild(member)
        else:
            self.group.release()

    def _restore(self, order: StartGenerationOrder, target: RestorePoint) -> None:
        state = self.state
        if self.make is not None:
            with self.group.extended():
                self.build()
        tracked = state.need_tracked()
        if state.snapshots is not None:
            is_whole = order.ship_whole or tracked.is_sharded
            state.snapshots.begin(order.peers, ship_whole=is_whole, epoch=order.epoch)
        restorer = Restorer(
            tracked=tracked,
            snapshots=state.snapshots,
            group=self.group,
            rank=state.rank,
            world=state.world,
            seed=self.seed,
            is_built=self.make is not None,
        )
        restorer.restore(target, had=state.step if state.has_state else None)

    def _resume(self, target: RestorePoint, *, is_moved: bool) -> None:
        """Take over the restored step, and report that training goes on."""
        state = self.state
        state.step, state.has_state = target.step, True
        state.cadence.restart(target.step)
        if state.snapshots is not None:
            state.snapshots.settle(
                state.step,
                state.tag,
                moved=state.rank in target.need_state or is_moved,
                is_resharded=bool(target.shard_ranks),
            )
        report = ResumedReport(
            generation=state.generation,
            step=state.step,
            losses=tuple(self.history.losses),
            rigid=is_fixed_size(state.need_tracked(), state.world),
        )
        self.reporter.send(report)
