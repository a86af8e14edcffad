"""A Hugging Face Trainer in a session: a tiny language model on made-up tokens."""

import json
import os
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from karez import training
from karez.runtime.trainer import attach


class Tokens(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = torch.randint(0, 50, (16,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": tokens, "labels": tokens}


def main() -> None:
    steps = json.loads(os.environ["KAREZ_SETTINGS"])["steps"]
    with training.session(seed=1, hide_world=True) as run:
        config = GPT2Config(
            vocab_size=50,
            n_positions=16,
            n_embd=32,
            n_layer=1,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
        )
        trainer = Trainer(
            model=GPT2LMHeadModel(config),
            args=TrainingArguments(
                output_dir="unused",
                max_steps=steps,
                per_device_train_batch_size=8,
                report_to=[],
                save_strategy="no",
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=Tokens(),
        )
        attach(trainer, run)
        trainer.train()
        if run.rank == 0:
            weights = torch.cat([p.detach().reshape(-1) for p in run.model.parameters()])
            (Path(run.output("final")) / "weights.txt").write_text(
                " ".join(float(value).hex() for value in weights)
            )


if __name__ == "__main__":
    main()
