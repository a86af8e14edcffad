"""A Hugging Face Trainer for a recipe: in a session that survives its ranks, on its device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from typing_extensions import override

from karez.runtime.device import computing_dtype
from karez.runtime.run import Run
from karez.runtime.trainer import attach
from karez.studio.recipes.recipe_io import say


def arguments_of(run: Run, scratch: Path, *, has_validation: bool, **more: Any) -> Any:
    """TrainingArguments as all recipes have them.

    With validation rows the model is measured after each epoch, and the best one is kept.

    Args:
        run: The session.
        scratch: Where the best model is kept; in a cloud it is the job's folder for checkpoints.
        has_validation: Whether there are validation rows.
        more: Arguments of the recipe.
    """
    return TrainingArguments(
        output_dir=str(scratch),
        use_cpu=run.device.type == "cpu",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="epoch",
        dataloader_pin_memory=False,
        eval_strategy="epoch" if has_validation else "no",
        save_strategy="best" if has_validation else "no",
        load_best_model_at_end=has_validation,  # rank 0 saves, whichever that will be
        save_only_model=True,
        save_total_limit=1,
        **more,
    )


class AutocastTrainer(Trainer):
    """A Trainer that computes in the type of the session's device, whatever its vendor.

    Trainer's own `bf16` knows which devices have it by vendor.
    """

    def __init__(self, *, run: Run, dtype: str, **parts: Any) -> None:
        """Create it; `dtype` is `auto` or the name of a type of torch."""
        super().__init__(**parts)
        own = computing_dtype(run.device) if dtype == "auto" else getattr(torch, dtype)
        self.dtype: torch.dtype = own if own == torch.bfloat16 else torch.float32
        self._kind = run.device.type

    @override
    def get_train_dataloader(self) -> Any:
        self.args.dataloader_drop_last = True  # each rank gets a row of each batch
        try:
            return super().get_train_dataloader()
        finally:
            self.args.dataloader_drop_last = False  # every validation row counts

    @override
    def compute_loss(self, *args: Any, **parts: Any) -> Any:
        with torch.autocast(self._kind, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return super().compute_loss(*args, **parts)


class _Telling(TrainerCallback):
    """Writes a line for each epoch to the job's log, by one rank for all."""

    @override
    def on_log(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        logs = parts["logs"]
        told = [f"loss {float(logs['loss']):.3f}"] if "loss" in logs else []
        told += [f"validation {name[5:]} {float(logs[name]):.4f}" for name in _measured(logs)]
        if told:
            say(f"epoch {state.epoch:g} of {args.num_train_epochs:g}: {', '.join(told)}")


def _measured(logs: Mapping[str, Any]) -> list[str]:
    speeds = ("runtime", "second")
    return [name for name in logs if name.startswith("eval_") and not name.endswith(speeds)]


def train(trainer: Trainer, run: Run, *, patience: int) -> None:
    """Train to the end, or until the model gets no better; on rank 0 it is the best one then."""
    trainer.remove_callback(PrinterCallback)
    if run.rank == 0:
        trainer.add_callback(_Telling())
    if trainer.args.eval_strategy != "no":
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=patience))
    attach(trainer, run)
    trainer.train()
