"""The handle of user code on one rank's part in a job.

Gradients are averaged over the ranks at the end of each backward. When a peer is lost, the
averaging gives up quietly, the step's result is thrown away, and `commit` restores the state of the
last step that every rank can restore; the loop then simply yields that batch again. Code with
collectives of its own, such as FSDP2's, belongs in `with run.trying():`, which ends such a step.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from karez.core.errors import BadRequest
from karez.core.messages.reports import NoticeReport, ProgressReport, TotalStepsReport
from karez.core.processes import Activity
from karez.runtime.ddp_wrapper import without_ddp
from karez.runtime.device import raise_if_lost
from karez.runtime.loader import Listed, StepLoader
from karez.runtime.loss_check import problem_with
from karez.runtime.micro_batches import MicroBatches
from karez.runtime.process_group import ProcessGroup
from karez.runtime.rank_environment import RankEnvironment
from karez.runtime.rank_runtime import RankRuntime
from karez.runtime.replay_loader import Replay
from karez.runtime.session_options import SessionOptions
from karez.runtime.tracked import History, Stateful, Tracked

Make = Callable[["Run"], tuple[torch.nn.Module, torch.optim.Optimizer]]


class Run:
    """One rank's part in a job: what it tracks, its batches, and the end of each step."""

    def __init__(
        self,
        environment: RankEnvironment,
        *,
        devices: tuple[torch.device, ...],
        options: SessionOptions,
        group: ProcessGroup,
    ) -> None:
        """Connect to the node agent, if there is one."""
        self._environment = environment
        self._options = options
        self._history = History()
        self._is_committed = True
        self.devices = devices
        """The devices of this rank, such as `npu:0` or `cuda:0`; the CPU if it has no other."""
        self._runtime = RankRuntime(
            environment, self._history, group, devices=devices, options=options
        )

    @property
    def device(self) -> torch.device:
        """The first of `devices`."""
        return self.devices[0]

    @property
    def rank(self) -> int:
        """Number of this rank in the group as it is now."""
        return self._runtime.state.rank

    @property
    def world(self) -> int:
        """Number of ranks in the group as it is now."""
        return self._runtime.state.world

    @property
    def step(self) -> int:
        """Number of completed steps."""
        return self._runtime.state.step

    @property
    def model(self) -> torch.nn.Module:
        """The model, as it is in this generation. Raises BadRequest before `track` or `build`."""
        return self._runtime.state.need_tracked().model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer, as it is in this generation. Raises BadRequest as `model`."""
        return self._runtime.state.need_tracked().optimizer

    def input(self, name: str) -> Path:
        """Return the folder of an input artifact. Raises BadRequest if the job has none such."""
        folder = Path(self._environment.inputs) / name
        if not folder.is_dir():
            raise BadRequest(
                problem=f"this job has no input {name!r}", fix=f"submit it with --input {name}=..."
            )
        return folder

    def output(self, name: str) -> Path:
        """Create a folder whose files become an artifact when the job succeeds."""
        folder = Path(self._environment.out) / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def track(
        self, *, model: torch.nn.Module, optimizer: torch.optim.Optimizer, **others: Stateful
    ) -> None:
        """Track a model, its optimizer and anything else with a state_dict.

        On return they hold the state of the last step that all ranks have, and `step` says
        how many steps are done. Call it once, after building them, before `steps`. Gradients are
        averaged by the session. A model in DistributedDataParallel is taken out of it: its forward
        still works, and averages nothing.
        """
        model = without_ddp(model)
        tracked = Tracked(
            model=model,
            optimizer=optimizer,
            others={**others, "karez": self._history},
            devices=self.devices,
        )
        self._runtime.average_grads_of(model)
        self._runtime.join(tracked)

    def build(self, make: Make, **others: Stateful) -> None:
        """Track models that are bound to their process group, such as FSDP2's; see `track`.

        `make(run)` is called once the group is there, and again in every generation; it returns
        the model and its optimizer, which `run.model` and `run.optimizer` then are. They average
        their gradients themselves. The step's code belongs in `with run.trying():`.
        """
        self._runtime.join_by(lambda: make(self), {**others, "karez": self._history})

    def steps(self, loader: StepLoader | Iterable[Any], *, total: int) -> Iterator[Any]:
        """Yield the batch of each step until `total` steps are complete on every rank, or `stop`.

        The loader is a StepLoader, or anything that can be iterated, such as a DataLoader with
        workers, which is restarted after a fault and read up to where it was.
        """
        runtime, state = self._runtime, self._runtime.state
        state.need_tracked()
        source = self._step_loader(loader)
        runtime.reporter.send(TotalStepsReport(steps=total))
        runtime.keep_start()
        while True:
            while state.step < self._end(total):
                batch = self._load(source)
                if runtime.may_enter():
                    yield from self._one_step(batch)
            runtime.reporter.send(TotalStepsReport(steps=self._end(total)))
            if runtime.all_here() or state.step >= self._end(total):
                return

    def _end(self, total: int) -> int:
        """The last step: of all, or as the ranks agreed to stop."""
        return min(total, self._runtime.state.stops_after or total)

    def stop(self) -> None:
        """End the loop over `steps` on all ranks, after the same step.

        It is the step under way, if this is called before its backward, else the next one. One
        rank is enough: the others learn of it with the gradients. A rank that leaves its loop by
        itself leaves the others waiting, and the job fails.

        Raises:
            BadRequest: The models were made by `build`: its gradients are not the session's.
        """
        self._runtime.stop()

    def _step_loader(self, loader: StepLoader | Iterable[Any]) -> StepLoader:
        if isinstance(loader, (list, tuple, range)):
            return Listed(batches=loader)
        if isinstance(loader, StepLoader):
            if isinstance(loader, MicroBatches):
                self._runtime.also_keep("karez-loader", loader)
            return loader
        replay = Replay(loader, seed=self._options.seed)
        self._runtime.also_keep("karez-loader", replay)
        return replay

    def _load(self, source: StepLoader) -> Any:
        runtime, state = self._runtime, self._runtime.state
        if isinstance(source, Replay):  # two snapshots are kept, and the older one may be needed
            source.window = 2 * state.cadence.every + 1
        runtime.reporter.post(Activity.LOADING)
        batch = source.at(state.batch, state.rank, state.world)
        runtime.reporter.post(Activity.COMPUTING)
        return batch

    def _one_step(self, batch: Any) -> Iterator[Any]:
        state = self._runtime.state
        position = (state.step, state.generation)
        self._is_committed = False
        yield batch
        if not self._is_committed and position == (state.step, state.generation):
            raise BadRequest(
                problem="a step ended without run.commit(loss=...)",
                fix="Call it once at the end of the loop's body.",
            )

    def accumulating(self) -> AbstractContextManager[None]:
        """Guard a backward that only accumulates gradients: they are averaged by a later one."""
        return self._runtime.accumulating()

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Guard the code of a step with collectives of its own: a broken one ends the step."""
        try:
            yield
        except RuntimeError as error:
            if not self._runtime.is_broken_by(error):
                raise
            self._is_committed = True
            self._runtime.reporter.report_collective_failure(error)
            self._runtime.heal_if_needed()

    def commit(self, *, loss: torch.Tensor | float) -> None:
        """End a step: write its snapshot, or go back to the last one if a peer was lost."""
        self._is_committed = True
        runtime = self._runtime
        if not runtime.state.is_spoiled:
            value = float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
            problem = self._problem_with(value)
            if problem:
                runtime.report_bad_loss(problem)
            else:
                self._history.add(runtime.state.step + 1, value)
                runtime.complete(value)
        runtime.heal_if_needed()

    def progress(self, what: str, done: int = 0, of: int = 0) -> None:
        """Tell what the job does beside its steps, such as loading; rank 0 speaks for all."""
        if self.rank == 0:
            self._runtime.reporter.send(ProgressReport(what=what, done=done, of=of))

    def notice(self, text: str) -> None:
        """Tell what should be known of the result; it stays in the job's status."""
        if self.rank == 0:
            self._runtime.reporter.send(NoticeReport(text=text))

    def _problem_with(self, loss: float) -> str:
        if not self._runtime.is_in_cloud:
            return ""
        return problem_with(loss, [value for _, value in self._history.losses], self._options.spike)

    def _gather(self, row: torch.Tensor) -> torch.Tensor:
        """Put the ranks' rows in one row; the own one alone before `track` and with a lost peer."""
        return self._runtime.gather(row)

    def _raise_if_lost(self, error: RuntimeError) -> None:
        if not self._runtime.is_aborted:
            raise_if_lost(self.device, error)

    def _finish(self) -> None:
        self._runtime.finish()
