"""The change of a rank from one generation of its gang to the next."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from karez.runtime.device import raise_if_lost
from karez.runtime.gradient_allreduce import GradientAllReduce
from karez.runtime.membership import Membership
from karez.runtime.process_group import ProcessGroup
from karez.runtime.rank_reporter import RankReporter
from karez.runtime.rank_state import RankState
from karez.runtime.reshard import is_fixed_size
from karez.runtime.restore import RestorePoint, Restorer
from karez.runtime.tracked import History, Stateful, Tracked
from karez.transport.rank_status import Activity

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
            message = self.reporter.next_message()
            match message["type"]:
                case "halt":
                    self._report_ready(int(message["generation"]))
                case "seek" if snapshots is not None:
                    found = snapshots.replicas.whole_replicas(message["seats"], message["keepers"])
                    self._report_ready(int(message["generation"]), found)
                case "leave":
                    raise SystemExit(0)
                case "go" if message["generation"] >= self.state.wanted_generation:
                    if self._start(message):
                        return

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
        self.reporter.send(
            "stood",
            generation=generation,
            sharded=is_sharded or self.make is not None,  # before the first build
            steps={str(step): source for step, (source, _) in sources.items()},
            born={str(step): born for step, (_, born) in sources.items() if born},
            found=found,
            every=state.cadence.every,
        )

    def _start(self, message: dict[str, Any]) -> bool:
        """Form the group and restore; False: that failed too, and the rank must go on waiting."""
        previous_rank, target = self.state.rank, RestorePoint.from_message(message)
        self._enter(message)
        try:
            self._form_group(message)
            self._restore(message, target)
        except RuntimeError as error:
            for device in () if self.group.is_aborted else self.devices:
                raise_if_lost(device, error)
            self.reporter.report_failure(error)
            return False
        self._resume(target, is_moved=previous_rank != self.state.rank)
        return True

    def _enter(self, message: Mapping[str, Any]) -> None:
        """Take over the generation and this rank's place in it."""
        state = self.state
        state.generation = int(message["generation"])
        self.group.arm()
        state.rank, state.world = int(message["rank"]), int(message["world"])
        state.skipped_batches = tuple(int(batch) for batch in message.get("skipped", ()))
        state.is_spoiled = False
        state.timer.reset()
        self.gradients.begin()
        state.compares_replicas = bool(message.get("alike"))

    def _form_group(self, message: Mapping[str, Any]) -> None:
        state = self.state
        if state.is_generation_over:  # its abort may have come before `arm`
            raise RuntimeError("the generation is over")
        if state.world > 1 or self.make is not None:
            store = message["store"] if state.world > 1 else ""
            member = Membership(
                generation=state.generation, rank=state.rank, world=state.world, store=store
            )
            self.group.rebuild(member)
        else:
            self.group.release()

    def _restore(self, message: Mapping[str, Any], target: RestorePoint) -> None:
        state = self.state
        if self.make is not None:
            with self.group.extended():
                self.build()
        tracked = state.need_tracked()
        if state.snapshots is not None:
            peers = tuple(str(peer) for peer in message["peers"])
            is_whole = bool(message["whole"]) or tracked.is_sharded
            state.snapshots.begin(peers, ship_whole=is_whole, epoch=int(message["epoch"]))
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
        self.reporter.send(
            "resumed",
            generation=state.generation,
            step=state.step,
            losses=list(self.history.losses),
            rigid=is_fixed_size(state.need_tracked(), state.world),
        )
