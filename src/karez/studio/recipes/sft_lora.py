"""Recipe: supervised fine-tuning through a LoRA adapter, in a session that survives its ranks."""

from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from karez import training
from karez.runtime.loader import ShuffledBatches
from karez.studio.recipes.chat_model import best_dtype, collate, encode, load, loss_of
from karez.studio.recipes.recipe_io import read_rows, say, settings_of, write_card
from karez.studio.settings import SftLora


def main() -> None:
    """Train, then save the adapter and the merged model."""
    settings = settings_of(SftLora)
    with training.session(seed=settings.seed) as run:
        tokenizer, base = load(run.input("model"), best_dtype(settings.dtype))
        model = _with_adapter(base, settings)
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=0.0)
        rows = read_rows(run.input("data") / "train.jsonl")
        batches = ShuffledBatches(
            dataset=[encode(tokenizer, row, settings.max_tokens) for row in rows],
            global_batch=settings.batch,
            seed=settings.seed,
            collate=partial(collate, tokenizer),
        )
        model.train()
        run.track(model=model, optimizer=optimizer)
        say(f"rank {run.rank} of {run.world}: {sum(p.numel() for p in trainable):,} parameters")
        for batch in run.steps(batches, total=settings.steps):
            for group in optimizer.param_groups:  # falls evenly to a tenth
                group["lr"] = settings.learning_rate * (1 - 0.9 * run.step / settings.steps)
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.commit(loss=loss)
        if run.rank == 0:
            _save(run, model, tokenizer, len(rows))


def _with_adapter(base: Any, settings: SftLora) -> Any:
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank,
        lora_dropout=0.05,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, config)


def _save(run: Any, model: Any, tokenizer: Any, rows: int) -> None:
    say("saving the adapter and the merged model")
    adapter = run.output("adapter")
    model.save_pretrained(adapter)
    write_card(adapter, kind="model", format="peft", facts={"rows": rows, "steps": run.step})
    merged = run.output("model")
    model.merge_and_unload().save_pretrained(merged)
    tokenizer.save_pretrained(merged)
    write_card(merged, kind="model", format="hf", facts={"rows": rows, "steps": run.step})
