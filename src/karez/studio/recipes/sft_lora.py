"""Recipe: supervised fine-tuning through a LoRA adapter, in a session that survives its ranks."""

from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from karez import training
from karez.engines.vector_model import context_of
from karez.runtime.device import device_memory, show_device
from karez.runtime.loader import ShuffledBatches
from karez.runtime.run import Run
from karez.studio.recipes.chat_model import (
    AnswerLoss,
    best_dtype,
    collate,
    encode,
    load,
)
from karez.studio.recipes.lora_targets import adapter_output, check_merged, excluded_modules
from karez.studio.recipes.memory_plan import choose_checkpointing, plan_memory
from karez.studio.recipes.recipe_io import read_rows, say, settings_of, write_card
from karez.studio.recipes.row_lengths import FittedRows, fit_rows
from karez.studio.settings import SftLora

TOLD_EVERY = 1000
"""Rows between two tellings of the progress."""
PROBED = 4
"""Rows on which the merged model is compared with the adapter."""


def main() -> None:
    """Train, then save the adapter and the merged model."""
    settings = settings_of(SftLora)
    # an adapter's state is small beside a step of its model: each step is kept
    with training.session(seed=settings.seed, snapshot_every=1) as run:
        run.progress("loading the model")
        tokenizer, base = load(
            run.input("model"), best_dtype(settings.dtype, run.device), run.device
        )
        model = _with_adapter(base, settings)
        fitted = _rows(run, tokenizer, base, settings)
        encoded = fitted.rows
        is_checkpointing = _fit(run, model, encoded, settings)
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=settings.learning_rate, weight_decay=0.0)
        batches = ShuffledBatches(
            dataset=encoded,
            global_batch=settings.batch,
            seed=settings.seed,
            collate=partial(collate, tokenizer),
        )
        model.train()
        loss_of = AnswerLoss(model)
        scaler = torch.amp.GradScaler(run.device.type, enabled=base.dtype == torch.float16)
        run.track(model=model, optimizer=optimizer, scaler=scaler)
        say(
            f"rank {run.rank} of {run.world} on {show_device(run.device)}: "
            f"{sum(p.numel() for p in trainable):,} parameters, base in "
            f"{str(base.dtype).removeprefix('torch.')}"
            + (", gradient checkpointing" if is_checkpointing else "")
        )
        for batch in run.steps(batches, total=settings.steps):
            for group in optimizer.param_groups:  # falls evenly to a tenth
                group["lr"] = settings.learning_rate * (1 - 0.9 * run.step / settings.steps)
            loss = loss_of(batch.to(run.device))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            run.commit(loss=loss)
        if run.rank == 0:
            _save(run, model, tokenizer, fitted)


def _rows(run: Run, tokenizer: Any, base: Any, settings: SftLora) -> FittedRows:
    """The training rows as tokens; what is lost of them is told."""
    rows = read_rows(run.input("data") / "train.jsonl")
    encoded = []
    for number, row in enumerate(rows):
        if number % TOLD_EVERY == 0:
            run.progress("reading rows", number, len(rows))
        encoded.append(encode(tokenizer, row))
    fitted = fit_rows(
        encoded,
        max_tokens=settings.max_tokens,
        context=context_of(base),
        max_cut=settings.max_cut,
    )
    if fitted.notice():
        run.notice(fitted.notice())
        say(fitted.notice())
    return fitted


def _fit(run: Run, model: Any, encoded: list[tuple[list[int], int]], settings: SftLora) -> bool:
    """Reckon whether a step fits on the device, and recompute activations if it must."""
    plan = plan_memory(
        model,
        tokens=max(len(tokens) for tokens, _ in encoded),
        answer_tokens=max(len(tokens) - prompt for tokens, prompt in encoded),
    )
    is_checkpointing = choose_checkpointing(
        plan,
        rows=-(-settings.batch // run.world),
        wanted=settings.gradient_checkpointing,
        device=run.device,
        memory=device_memory(run.device),
    )
    if is_checkpointing:
        model.enable_input_require_grads()  # the frozen embedding's output must carry a gradient
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return is_checkpointing


def _with_adapter(base: Any, settings: SftLora) -> Any:
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank,
        lora_dropout=0.05,
        target_modules="all-linear",
        exclude_modules=excluded_modules(base),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, config)


def _save(run: Run, model: Any, tokenizer: Any, fitted: FittedRows) -> None:
    say("saving the adapter and the merged model")
    run.progress("saving")
    probe = collate(tokenizer, fitted.rows[:PROBED]).to(run.device)
    before = adapter_output(model, probe.tokens_BL, probe.mask_BL)
    adapter = run.output("adapter")
    model.save_pretrained(adapter)
    facts: dict[str, Any] = {"rows": len(fitted.rows), "steps": run.step, **fitted.facts()}
    facts["device"] = show_device(run.device)
    write_card(adapter, kind="model", format="peft", facts=facts)
    merged = run.output("model")
    whole = model.merge_and_unload()
    lost = check_merged(whole, before, probe.tokens_BL, probe.mask_BL)
    facts["merge_loss"] = round(lost, 4)
    whole.save_pretrained(merged)
    tokenizer.save_pretrained(merged)
    write_card(merged, kind="model", format="hf", facts=facts)
