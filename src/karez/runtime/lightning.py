"""Support for the PyTorch Lightning Trainer in a session.

    with training.session(hide_world=True) as run:
        trainer = Trainer(callbacks=[KarezCallback(run)], strategy=on_device(run), ...)
        trainer.fit(module, loader)

Each rank's Trainer sees one process. The session averages gradients between the ranks and splits
the batches; a step is committed when the loop asks for the batch after it, with all that
validation and the callbacks made of it. What the Trainer is at, such as epoch, batch, schedulers
and the states of callbacks, is kept with each step, so a rank goes on from there wherever its code
is, and a new process does so from its first batch on.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from statistics import fmean
from typing import Any

import torch
from typing_extensions import override

from karez.core.errors import BadRequest
from karez.runtime.micro_batches import MicroBatches, Split
from karez.runtime.restore import restart_process
from karez.runtime.run import Run
from karez.runtime.tracked import Stateful

pl: Any = import_module(
    "lightning.pytorch" if "lightning.pytorch" in sys.modules else "pytorch_lightning"
)
"""Lightning, under the name by which the script has imported it."""


class KarezCallback(pl.Callback):
    """Trains a module in a session. Checkpoints and logs are written by rank 0 alone."""

    def __init__(self, run: Run, *, split: Split | None = None) -> None:
        """Create the callback; `split` gives a rank its rows of a batch, if tensors' rows differ.

        By default a rank takes each `world`-th row of all tensors in a batch.
        """
        self.run = run
        self._split = split
        self._steps: Iterator[list[Any]] | None = None
        self._rest: list[Any] = []
        """Batches of the step under way that the loop has not asked for."""
        self._losses: list[float] = []
        """Losses of the step under way; empty: no step is."""
        self._backward = ExitStack()

    @override
    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit":
            return
        device = trainer.strategy.root_device
        if trainer.world_size > 1 or device.type != self.run.device.type:
            raise BadRequest(
                problem=f"this Trainer uses {trainer.world_size} x {device}, and the session's"
                f" rank has {self.run.device}",
                fix="Open the session with hide_world=True, and give the Trainer"
                " strategy=karez.runtime.lightning.on_device(run).",
            )
        if not pl_module.automatic_optimization:
            raise BadRequest(
                problem="a module with automatic_optimization=False steps its optimizers itself",
                fix="Write its loop with run.steps and run.commit.",
            )
        for callback in trainer.early_stopping_callbacks:
            callback._evaluate_stopping_criteria = self._agreed(
                callback._evaluate_stopping_criteria
            )
        if self.run.rank:
            trainer.loggers = []
        trainer.save_checkpoint = self._by_first_rank(trainer.save_checkpoint)
        strategy = trainer.strategy
        strategy.remove_checkpoint = self._by_first_rank(strategy.remove_checkpoint)

    @override
    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        del pl_module
        source = trainer.fit_loop._data_source
        loader = source.dataloader()
        if not hasattr(loader, "__len__") or isinstance(loader, (Mapping, list, tuple)):
            raise BadRequest(
                problem="a session needs one training loader that has a length",
                fix="Give trainer.fit one DataLoader over a data set with a length.",
            )
        source.instance = _Batches(self, trainer, loader)

    @override
    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        del pl_module, loss
        if trainer.fit_loop.epoch_loop._should_accumulate():
            self._backward.enter_context(self.run.accumulating())

    @override
    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        self._backward.close()

    @override
    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        del trainer, pl_module, batch, batch_idx
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is None:
            raise BadRequest(
                problem="training_step returned no loss",
                fix="Return one for every batch: the ranks average the gradients of each.",
            )
        self._losses.append(float(loss.detach()))

    @override
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        reached = self.run.step + bool(self._losses)
        self._commit()
        is_last = reached >= _steps_in_all(trainer)
        more = next(self._steps, None) if is_last and self._steps is not None else None
        if self.run.step < reached or more is not None:
            restart_process()  # a peer was lost before the last step, and this loop has ended

    def _by_first_rank(self, write: Callable[..., None]) -> Callable[..., None]:
        """What writes or removes a checkpoint: the callbacks decide alike on all ranks."""

        def write_or_not(*args: Any, **kwargs: Any) -> None:
            if self.run.rank == 0:
                write(*args, **kwargs)

        return write_or_not

    def _agreed(
        self, decide: Callable[[torch.Tensor], tuple[bool, str | None]]
    ) -> Callable[[torch.Tensor], tuple[bool, str | None]]:
        """Stop early where any rank would: each has a loss of its own, by its BatchNorm means."""

        def decide_together(current: torch.Tensor) -> tuple[bool, str | None]:
            is_over, reason = decide(current)
            votes = self.run._gather(torch.tensor([float(is_over)]))
            return bool(votes.any()), reason

        return decide_together

    def next_batch(self, trainer: Any, loader: Any) -> Any:
        """Return the next batch of this rank, after the end of the step before; None: no more."""
        if self._steps is None:
            self._steps = self._begin(trainer, loader)
        if not self._rest:
            self._commit()
            if trainer.should_stop and trainer.fit_loop._can_stop_early:
                return None  # decided by an evaluation before this process began
            self._rest = list(next(self._steps, []))
        return self._rest.pop(0) if self._rest else None

    def _begin(self, trainer: Any, loader: Any) -> Iterator[list[Any]]:
        """Track what the Trainer has built, and go to the step that all ranks restored."""
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.run.track(
            model=trainer.lightning_module,
            optimizer=trainer.optimizers[0],
            lightning=_Position(trainer),
            **{f"scheduler-{number}": item for number, item in enumerate(schedulers)},
            **({} if scaler is None else {"scaler": scaler}),
        )
        batches = BatchNumbers(trainer, len(loader))
        source = MicroBatches(
            loader, batches.of, most=trainer.accumulate_grad_batches, split=self._split
        )
        return self.run.steps(source, total=_steps_in_all(trainer))

    def _commit(self) -> None:
        if self._losses:
            loss, self._losses = fmean(self._losses), []
            self.run.commit(loss=loss)


def on_device(run: Run) -> Any:
    """Return a strategy for `Trainer(strategy=...)` that computes on the run's device.

    Metrics that are logged with `sync_dist=True` are means over the ranks.
    """
    return _SessionStrategy(run)


class _SessionStrategy(pl.strategies.SingleDeviceStrategy):
    """One device of one rank, which knows of the others for metrics."""

    def __init__(self, run: Run) -> None:
        super().__init__(device=run.device, accelerator=_RunAccelerator())
        self._run = run

    @override
    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        if not isinstance(tensor, torch.Tensor) or reduce_op not in ("mean", "avg"):
            return tensor
        rows = self._run._gather(tensor.detach().float().reshape(-1))
        return rows.reshape(-1, *tensor.shape).mean(0).to(tensor)


class _RunAccelerator(pl.accelerators.Accelerator):
    """The device of a run, of whatever kind: Lightning knows CPUs, GPUs and TPUs."""

    @override
    def setup_device(self, device: torch.device) -> None:
        """Nothing is left to do: the run has opened it."""

    @override
    def teardown(self) -> None:
        """Nothing was set up."""

    @override
    def get_device_stats(self, device: torch.device | str | int) -> dict[str, Any]:
        return {}

    @staticmethod
    @override
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    @override
    def get_parallel_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    @override
    def auto_device_count() -> int:
        return 1

    @staticmethod
    @override
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "karez"


class _Batches:
    """The loader that a Trainer sees: each epoch has the length of the loader's."""

    def __init__(self, callback: KarezCallback, trainer: Any, loader: Any) -> None:
        self._callback, self._trainer, self._loader = callback, trainer, loader
        self.batch_size = getattr(loader, "batch_size", None)
        self.dataset = getattr(loader, "dataset", None)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        """Yield batches for as long as the loop asks: its counts tell where an epoch ends."""
        while (batch := self._callback.next_batch(self._trainer, self._loader)) is not None:
            yield batch


class BatchNumbers:
    """Numbers of the batches of a step. The last step of an epoch may have fewer than others."""

    def __init__(self, trainer: Any, in_loader: int) -> None:
        self._in_loader, self._in_epoch = in_loader, int(trainer.num_training_batches)
        self._each = int(trainer.accumulate_grad_batches)
        self._steps = -(-self._in_epoch // self._each)

    def of(self, step: int) -> Sequence[int]:
        """Return the numbers, counted over all epochs of the loader."""
        epoch, group = divmod(step, self._steps)
        last = min((group + 1) * self._each, self._in_epoch)
        first = epoch * self._in_loader
        return range(first + group * self._each, first + last)


def _steps_in_all(trainer: Any) -> int:
    """Steps of the whole training. Raises BadRequest where it has no end."""
    per_epoch = -(-int(trainer.num_training_batches) // int(trainer.accumulate_grad_batches))
    limits = [int(trainer.max_steps)] if trainer.max_steps >= 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        limits.append(int(trainer.max_epochs) * per_epoch)
    if not limits:
        raise BadRequest(
            problem="this training has no end",
            fix="Set max_epochs or max_steps in the Trainer.",
        )
    return min(limits)


class _Position(Stateful):
    """What a Trainer is at: its loops' counts, its callbacks, and whether it should stop."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    @override
    def state_dict(self) -> Mapping[str, Any]:
        return {
            "loops": self._trainer.fit_loop.state_dict(),
            "callbacks": pl.trainer.call._call_callbacks_state_dict(self._trainer),
            "should_stop": self._trainer.should_stop,
        }

    @override
    def load_state_dict(self, state: Any, /) -> object:
        trainer, loop = self._trainer, self._trainer.fit_loop
        loop.load_state_dict(state["loops"])
        for part in (loop, loop.epoch_loop, loop.epoch_loop.automatic_optimization):
            part.on_iteration_done()  # not a restart to Lightning: the code is where the counts are
        loop.epoch_loop.val_loop.on_iteration_done()
        pl.trainer.call._call_callbacks_load_state_dict(trainer, {"callbacks": state["callbacks"]})
        trainer.should_stop = state["should_stop"]
        fetcher = loop._data_fetcher
        fetcher.fetched = loop.epoch_loop.batch_progress.current.ready
        return None
