"""A Hugging Face Trainer in a session: a tiny language model on made-up tokens."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import (
    EarlyStoppingCallback,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from karez import training
from karez.runtime.trainer import attach
from tests.contracts.weights import keep_weights


class Tokens(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        seeded = torch.Generator().manual_seed(self.first + index)
        tokens = torch.randint(0, 50, (16,), generator=seeded)
        return {"input_ids": tokens, "labels": tokens}


def gate(settings: dict[str, Any]) -> Any:
    """A callback that waits after a step for a file."""

    def on_step_end(args: Any, state: Any, control: Any, **parts: Any) -> None:
        while state.global_step == settings["gate_at"] and not Path(settings["gate"]).exists():
            time.sleep(0.01)

    callback = TrainerCallback()
    callback.on_step_end = on_step_end
    return callback


def main() -> None:
    settings = json.loads(os.environ["KAREZ_SETTINGS"])
    more: dict[str, Any] = {"max_steps": settings["steps"]}
    if settings.get("epochs"):  # three micro-batches a step; evaluated and stored after each epoch
        more = {
            "num_train_epochs": settings["epochs"],
            "gradient_accumulation_steps": 3,
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "load_best_model_at_end": True,
            "metric_for_best_model": "loss",
            "learning_rate": 3e-2,
        }
    with training.session(seed=1, hide_world=True, snapshot_every=settings.get("every", 0)) as run:
        config = GPT2Config(
            vocab_size=50,
            n_positions=16,
            n_embd=32,
            n_layer=1,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
        )
        is_on_cpu = run.device.type == "cpu"
        trainer = Trainer(
            model=GPT2LMHeadModel(config),
            args=TrainingArguments(
                output_dir=str(run.output("checkpoints")) if run.rank == 0 else "unused",
                per_device_train_batch_size=8,
                report_to=[],
                use_cpu=is_on_cpu,
                disable_tqdm=True,
                **{"save_strategy": "no", **more},
            ),
            train_dataset=Tokens(0, 64),
            eval_dataset=Tokens(1000, 16),
        )
        if settings.get("epochs"):
            trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=2))
        attach(trainer, run)
        if "gate" in settings:
            trainer.add_callback(gate(settings))
        trainer.train()
        if run.rank == 0:
            evaluated = [
                (row["step"], row["eval_loss"])
                for row in trainer.state.log_history
                if "eval_loss" in row
            ]
            said = f"evaluated {evaluated}, stopped at {run.step} of {trainer.args.max_steps}"
            sys.stdout.write(said + "\n")
        keep_weights(run, run.model)


if __name__ == "__main__":
    main()
