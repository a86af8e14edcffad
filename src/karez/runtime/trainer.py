"""Support for the Hugging Face Trainer, and for Accelerate, in a session.

    with training.session(hide_world=True) as run:
        trainer = Trainer(model=model, args=TrainingArguments(..., max_steps=1000), ...)
        attach(trainer, run)
        trainer.train()

Each rank's Trainer sees one process; the session averages gradients between the ranks, splits the
batches, keeps every step, and sets the Trainer back when a peer is lost. Code with Accelerate's
own loop does the same with `run.track` after `accelerator.prepare`, in a hidden world.
"""

from collections.abc import Iterator
from typing import Any

from transformers import TrainerCallback
from typing_extensions import override

from karez.core.errors import BadRequest
from karez.runtime.loader import StepLoader
from karez.runtime.replay_loader import Replay
from karez.runtime.run import Run


def attach(trainer: Any, run: Run) -> None:
    """Connect a Trainer to a session; call it before `trainer.train`.

    Raises:
        BadRequest: The Trainer accumulates gradients, or has no max_steps: a step of the
            session must be a step of the Trainer.
    """
    arguments = trainer.args
    if arguments.gradient_accumulation_steps != 1:
        raise BadRequest(
            problem="gradient accumulation is not kept step by step",
            fix="Use gradient_accumulation_steps=1 and a larger batch, or more ranks.",
        )
    if arguments.max_steps <= 0:
        raise BadRequest(
            problem="a session counts steps", fix="Set max_steps in TrainingArguments."
        )
    callback = KarezCallback(run, arguments.max_steps)
    plain_step, plain_loader = trainer.training_step, trainer.get_train_dataloader

    def training_step(*args: Any, **kwargs: Any) -> Any:
        loss = plain_step(*args, **kwargs)
        callback.loss = float(loss.detach())
        return loss

    trainer.training_step = training_step
    trainer.get_train_dataloader = lambda: _Batches(callback, plain_loader())
    trainer.add_callback(callback)


class KarezCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
    """Commits each step of a Trainer to the session."""

    def __init__(self, run: Run, total: int) -> None:
        """Create the callback of a Trainer that runs `total` steps."""
        self.run = run
        self.total = total
        self.loss = 0.0
        """Loss of the newest step."""
        self.batches: Iterator[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Track what the Trainer has built, and go to the step that all ranks restored."""
        del args, control
        optimizer = parts["optimizer"]
        self.run.track(
            model=parts["model"],
            optimizer=getattr(optimizer, "optimizer", optimizer),  # Accelerate wraps it
            scheduler=parts["lr_scheduler"],
        )
        state.global_step = self.run.step

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Commit a step; after a fault this sets the Trainer back."""
        del args, parts
        self.run.commit(loss=self.loss)
        state.global_step = self.run.step
        control.should_training_stop = self.run.step >= self.total


class _Batches:
    """A loader for a Trainer that yields the batch of the session's next step."""

    def __init__(self, callback: KarezCallback, source: Any) -> None:
        self._callback = callback
        self._source = getattr(source, "base_dataloader", source)  # Accelerate wraps it
        self.batch_size = getattr(source, "batch_size", None)
        self.dataset = getattr(source, "dataset", None)

    def __len__(self) -> int:
        """Return more than it will ever need: repeated steps must not end its epoch."""
        return 1000 * self._callback.total

    def __iter__(self) -> Iterator[Any]:
        run, total = self._callback.run, self._callback.total
        yield from run.steps(_Split(self._source), total=total)


class _Split(StepLoader):
    """Reads all batches on every rank and keeps its rows: the same for any number of ranks."""

    def __init__(self, source: Any) -> None:
        self._all = Replay(source)

    @override
    def at(self, step: int, rank: int, world: int) -> Any:
        """Return this rank's rows of the batch."""
        batch = self._all.at(step, rank, world)
        return {name: rows[rank::world] for name, rows in batch.items()}
