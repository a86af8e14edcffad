"""Support for the Hugging Face Trainer, and for Accelerate, in a session.

    with training.session(hide_world=True) as run:
        trainer = Trainer(model=model, args=TrainingArguments(...), ...)
        attach(trainer, run)
        trainer.train()

Each rank's Trainer sees one process; the session averages gradients between the ranks, splits the
batches, keeps every step, and sets the Trainer back when a peer is lost. Every rank evaluates all
of the evaluation data, so all take the same decisions. Code with Accelerate's own loop does the
same with `run.track` after `accelerator.prepare`, in a hidden world.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from typing_extensions import override

from karez.core import environment
from karez.core.errors import BadRequest, BrokenArtifact
from karez.runtime.micro_batches import micro_batches
from karez.runtime.process_environment import read
from karez.runtime.random_state import generator_states, restore_generators
from karez.runtime.run import Run
from karez.runtime.tracked import Stateful


def attach(trainer: Any, run: Run) -> None:
    """Connect a Trainer to a session; call it before `trainer.train`.

    A number of epochs becomes the number of steps that it stands for; what the Trainer does at the
    end of an epoch it does after the last step of one. Checkpoints of the Trainer's own are written
    by rank 0 alone; in a cloud they go to `trainer/` in KAREZ_CHECKPOINT_DIR, wherever `output_dir`
    led: there they outlive its process and its node.

    Raises:
        BadRequest: The Trainer has no max_steps, and its data no length to reckon them from.
    """
    arguments = trainer.args
    loader = trainer.get_train_dataloader()
    per_epoch = _steps_per_epoch(loader, arguments)
    if arguments.max_steps <= 0:
        if not per_epoch:
            raise BadRequest(
                problem="a session counts steps, and this data has no length",
                fix="Set max_steps in TrainingArguments.",
            )
        arguments.max_steps = math.ceil(arguments.num_train_epochs * per_epoch)
    kept = read(environment.CHECKPOINT_DIR, "")
    if kept:  # the folder of a process ends with it
        arguments.output_dir = str(Path(kept) / "trainer")
    callback = KarezCallback(trainer, run, per_epoch)
    _wrap(trainer, run, callback)
    trainer.get_train_dataloader = lambda: _Batches(callback, loader)
    trainer.add_callback(callback)


def _wrap(trainer: Any, run: Run, callback: "KarezCallback") -> None:
    """Let a Trainer's own parts know of the session."""
    plain_step, plain_evaluate = trainer.training_step, trainer.evaluate
    plain_save = trainer._save_checkpoint

    def training_step(*args: Any, **kwargs: Any) -> Any:
        with callback.micro_step():
            loss = plain_step(*args, **kwargs)
        callback.loss += float(loss.detach())
        return loss

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        before = generator_states(run.devices)  # an evaluation must not change what is trained
        try:
            return plain_evaluate(*args, **kwargs)
        finally:
            restore_generators(before)

    def save_checkpoint(*args: Any, **kwargs: Any) -> None:
        if not run.rank:  # as it is now: ranks are numbered anew when one is lost
            plain_save(*args, **kwargs)

    trainer.training_step, trainer.evaluate = training_step, evaluate
    trainer._save_checkpoint = save_checkpoint


def _steps_per_epoch(loader: Any, arguments: Any) -> int:
    """Steps of an epoch, as the Trainer counts them; 0 if the data has no length."""
    try:
        return max(1, -(-len(loader) // int(arguments.gradient_accumulation_steps)))
    except TypeError:  # an iterable data set
        return 0


class KarezCallback(TrainerCallback):
    """Commits each step of a Trainer to the session."""

    def __init__(self, trainer: Any, run: Run, per_epoch: int) -> None:
        """Create the callback of a Trainer; `per_epoch` is its steps in an epoch, 0: unknown."""
        self.trainer, self.run, self.per_epoch = trainer, run, per_epoch
        self.loss = 0.0
        """Loss of the step under way, summed over its micro-batches."""
        self._micro = 0
        self.is_over = False
        """Whether the training had ended when this process took its place."""

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        return int(self.trainer.args.max_steps)

    @property
    def micro_batches(self) -> int:
        """Batches of one step."""
        return int(self.trainer.args.gradient_accumulation_steps)

    def micro_step(self) -> Any:
        """Guard a backward: the gradients of all but the last of a step stay on this rank."""
        self._micro += 1
        is_last = self._micro % self.micro_batches == 0
        return nullcontext() if is_last else self.run.accumulating()

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Track what the Trainer has built, and go to the step that all ranks restored."""
        optimizer = parts["optimizer"]
        self.run.track(
            model=parts["model"],
            optimizer=getattr(optimizer, "optimizer", optimizer),  # Accelerate wraps it
            scheduler=parts["lr_scheduler"],
            trainer=_Decisions(self.trainer, state),
        )
        self._go_to(self.run.step, state)
        if self.run.step:
            self._finish_step(args, state, control)
            self._keep_best(args, state)
            self.is_over = bool(control.should_training_stop)

    def _keep_best(self, args: Any, state: Any) -> None:
        """Save the best model where the rank that was to has not, while it is the one at hand."""
        is_at_hand = int(state.global_step) == state.best_global_step
        is_wanted = not self.run.rank and args.load_best_model_at_end and is_at_hand
        if is_wanted and not _best_folder(args, state).is_dir():
            self.trainer._save_checkpoint(self.trainer.model, None)

    def _finish_step(self, args: Any, state: Any, control: Any) -> None:
        """Do what a process that was lost may not have done after its last step."""
        is_best = False
        if self._is_evaluated(args, state):
            metrics = self.trainer._evaluate(None, None)
            is_best = self.trainer._determine_best_metric(metrics=metrics, trial=None)
            control.should_evaluate = False
        if self._is_saved(args, state, is_best=is_best):
            self.trainer._save_checkpoint(self.trainer.model, None)

    def _is_saved(self, args: Any, state: Any, *, is_best: bool) -> bool:
        """Whether the Trainer saves after the step that it is at."""
        if args.save_strategy == "steps":
            return int(state.global_step) % int(state.save_steps) == 0
        if args.save_strategy == "epoch":
            return self._ends_epoch(state)
        return bool(args.save_strategy == "best") and is_best

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Commit a step; after a fault this sets the Trainer back."""
        del parts
        reached = int(state.global_step)
        self.run.commit(loss=self.loss)
        self._go_to(self.run.step, state)
        if self.run.step != reached:  # what was decided for the step that is lost
            control.should_log = control.should_save = False
            self._keep_best(args, state)
        control.should_evaluate = self._is_evaluated(args, state)
        if self._ends_epoch(state):
            control.should_log |= args.logging_strategy == "epoch"
            control.should_save |= args.save_strategy == "epoch"
        control.should_training_stop |= self.run.step >= self.total

    def on_epoch_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Do nothing again that was done after the last step of an epoch.

        The best model is the one of the step that all ranks know, whichever of them saved it.

        Raises:
            BrokenArtifact: It is gone: another model than the best one is not delivered.
        """
        del parts
        if not self.run.rank and args.load_best_model_at_end and state.best_global_step:
            best = _best_folder(args, state)
            if not best.is_dir():
                problem = f"the best model (step {state.best_global_step}) is gone"
                raise BrokenArtifact(name=str(best), problem=problem)
            state.best_model_checkpoint = str(best)
        if self._ends_epoch(state):
            control.should_log = control.should_save = control.should_evaluate = False

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Refuse to deliver another model than the best one. Raises BrokenArtifact."""
        del control, parts
        best = state.best_model_checkpoint
        is_wanted = args.load_best_model_at_end and not self.run.rank
        if is_wanted and state.best_global_step and best is not None and not Path(best).is_dir():
            problem = f"it is gone, and the best model (step {state.best_global_step}) with it"
            raise BrokenArtifact(name=best, problem=problem)

    def _go_to(self, step: int, state: Any) -> None:
        self.loss, self._micro = 0.0, 0
        state.global_step = step
        if self.per_epoch:
            state.epoch = step / self.per_epoch

    def _ends_epoch(self, state: Any) -> bool:
        return bool(self.per_epoch) and int(state.global_step) % self.per_epoch == 0

    def _is_evaluated(self, args: Any, state: Any) -> bool:
        """Whether the Trainer evaluates after the step that it is at."""
        step = int(state.global_step)
        if not step or args.eval_delay > (state.epoch if args.eval_strategy == "epoch" else step):
            return False
        if args.eval_strategy == "steps":
            return step % int(state.eval_steps) == 0 or step >= self.total
        return bool(args.eval_strategy == "epoch" and self._ends_epoch(state))


def _best_folder(args: Any, state: Any) -> Path:
    """Where the best model is kept."""
    return Path(args.output_dir, f"checkpoint-{state.best_global_step}")


class _Decisions(Stateful):
    """What a Trainer knows besides its step: its best model, its log, and its callbacks' counts."""

    def __init__(self, trainer: Any, state: Any) -> None:
        self._trainer, self._state = trainer, state
        self._logged = (0, "[]")

    @override
    def state_dict(self) -> Mapping[str, Any]:
        return {
            "best": {name: getattr(self._state, name, None) for name in _BEST},
            "history": self._history(),
            "callbacks": {
                type(callback).__name__: callback.state()["attributes"]
                for callback in self._exportable()
            },
        }

    def _history(self) -> str:
        """The Trainer's log as JSON, which is written anew only when it has grown."""
        log = self._state.log_history
        if len(log) != self._logged[0]:
            self._logged = (len(log), json.dumps(log))
        return self._logged[1]

    @override
    def load_state_dict(self, state: Any, /) -> object:
        for name, value in state["best"].items():
            setattr(self._state, name, value)
        if self._state.best_model_checkpoint:  # on another node the folder has another path
            here = Path(self._trainer.args.output_dir, Path(self._state.best_model_checkpoint).name)
            self._state.best_model_checkpoint = str(here)
        self._state.log_history = json.loads(state.get("history", "[]"))
        for callback in self._exportable():
            for name, value in state["callbacks"].get(type(callback).__name__, {}).items():
                setattr(callback, name, value)
        return None

    def _exportable(self) -> list[Any]:
        known = self._trainer.callback_handler.callbacks
        return [callback for callback in known if hasattr(callback, "state")]


_BEST = (
    *("best_metric", "best_global_step", "best_model_checkpoint"),
    *("total_flos", "num_input_tokens_seen"),
)


class _Batches:
    """A loader for a Trainer that yields the batches of the session's next step, one by one."""

    def __init__(self, callback: KarezCallback, source: Any) -> None:
        self._callback = callback
        self._source = getattr(source, "base_dataloader", source)  # Accelerate wraps it
        self.batch_size = getattr(source, "batch_size", None)
        self.dataset = getattr(source, "dataset", None)

    def __len__(self) -> int:
        """Return more than it will ever need: repeated steps must not end its epoch."""
        return 1000 * self._callback.total * self._callback.micro_batches

    def __iter__(self) -> Iterator[Any]:
        callback = self._callback
        if callback.is_over:
            return
        batches = micro_batches(self._source, callback.micro_batches)
        for step in callback.run.steps(batches, total=callback.total):
            yield from step
