"""Recipe: a model that names the label of a text, all of its weights trained."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorWithPadding

from karez import training
from karez.core import environment
from karez.core.chat_rows import Row
from karez.core.errors import BadRequest
from karez.engines.vector_model import longest_text
from karez.runtime.device import show_device
from karez.runtime.run import Run
from karez.studio.recipes.classifier import (
    CHOSEN_BY,
    Texts,
    last_layer,
    new_classifier,
    tokens_of,
)
from karez.studio.recipes.hugging_face_training import AutocastTrainer, arguments_of, train
from karez.studio.recipes.recipe_io import folder, read_rows, say, settings_of, write_card
from karez.studio.settings import TrainClassifier
from karez.studio.text_labels import label_of, labels_of, text_of

FRESH = 10
"""Learning rate of the last layer, relative to that of the others."""
EPOCHS, MOST_EPOCHS, LEAST_STEPS = 6, 30, 400


def main() -> None:
    """Train, then save the model."""
    settings = settings_of(TrainClassifier)
    with training.session(seed=settings.seed, hide_world=True) as run:
        run.progress("reading rows")
        rows = read_rows(run.input("data") / "train.jsonl")
        labels = labels_of(rows)
        run.progress("loading the model")
        tokenizer, model = new_classifier(run.input("model"), run.device, labels)
        texts = _texts(run, tokenizer, model, rows, settings)
        validation = _validation(run.input("data"), tokenizer, texts.limit, labels, settings)
        trainer = AutocastTrainer(
            run=run,
            dtype=settings.dtype,
            model=model,
            args=_arguments(run, settings, len(rows), has_validation=bool(validation)),
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=_examples(texts.tokens, rows, labels),
            eval_dataset=validation or None,
            compute_metrics=_accuracy,
            optimizers=(_optimizer(model, settings), None),
        )
        say(
            f"rank {run.rank} of {run.world} on {show_device(run.device)}: "
            f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(labels)} labels, "
            f"computed in {str(trainer.dtype).removeprefix('torch.')}"
        )
        train(trainer, run, patience=settings.patience)
        if run.rank == 0:
            _save(run, trainer, tokenizer, {"rows": len(rows), **texts.facts()})


def _texts(
    run: Run, tokenizer: Any, model: Any, rows: Sequence[Row], settings: TrainClassifier
) -> Texts:
    """The training rows as tokens; what is lost of them is told."""
    texts = tokens_of(
        tokenizer,
        [text_of(row) for row in rows],
        longest=longest_text(model, tokenizer),
        max_tokens=settings.max_tokens,
        max_cut=settings.max_cut,
    )
    if texts.notice():
        run.notice(texts.notice())
        say(texts.notice())
    return texts


def _validation(
    data: Path, tokenizer: Any, limit: int, labels: Sequence[str], settings: TrainClassifier
) -> list[dict[str, Any]]:
    """The rows by which the best epoch is chosen; those of no known label say nothing of it."""
    path = data / "validation.jsonl"
    if settings.keep != "best" or not path.is_file() or not path.stat().st_size:
        return []
    known = [row for row in read_rows(path) if label_of(row) in labels]
    if not known:
        return []
    texts = [text_of(row) for row in known]
    read = tokens_of(tokenizer, texts, longest=limit, max_tokens=0, max_cut=1.0)
    return _examples(read.tokens, known, labels)


def _examples(
    tokens: Sequence[list[int]], rows: Sequence[Row], labels: Sequence[str]
) -> list[dict[str, Any]]:
    numbers = {label: number for number, label in enumerate(labels)}
    return [
        {"input_ids": ids, "labels": numbers[label_of(row)]}
        for ids, row in zip(tokens, rows, strict=True)
    ]


def _arguments(run: Run, settings: TrainClassifier, rows: int, *, has_validation: bool) -> Any:
    batch = min(settings.batch, rows)
    if batch < run.world:
        raise BadRequest(
            problem=f"a batch of {batch} rows is too small for {run.world} workers",
            fix="Ask for fewer workers, or for a larger batch.",
        )
    return arguments_of(
        run,
        folder(environment.OUT) / "checkpoints",
        has_validation=has_validation,
        num_train_epochs=settings.epochs or passes(rows // batch),
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=4 * batch,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        label_smoothing_factor=settings.label_smoothing,
        train_sampling_strategy="group_by_length",
        metric_for_best_model="accuracy",
        seed=settings.seed,
    )


def _optimizer(model: Any, settings: TrainClassifier) -> torch.optim.Optimizer:
    """AdamW, which takes larger steps where nothing is known yet."""
    fresh = last_layer(model)
    numbers = set(map(id, fresh))
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if id(p) not in numbers]},
        {"params": fresh, "lr": FRESH * settings.learning_rate},
    ]
    return torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )


def passes(steps: int) -> int:
    """Passes over rows that make so many steps, if none are asked for."""
    return max(EPOCHS, min(MOST_EPOCHS, -(-LEAST_STEPS // steps)))


def _accuracy(predicted: Any) -> dict[str, float]:
    found = np.argmax(predicted.predictions, axis=-1)
    return {"accuracy": float((found == predicted.label_ids).mean())}


def _save(run: Run, trainer: Any, tokenizer: Any, facts: dict[str, Any]) -> None:
    run.progress("saving")
    target = run.output("model")
    trainer.model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    measured = [row for row in trainer.state.log_history if "eval_accuracy" in row]
    best = max(measured, key=lambda row: row["eval_accuracy"], default=None)
    facts |= {
        "labels": int(trainer.model.config.num_labels),
        "steps": run.step,
        "device": show_device(run.device),
    }
    if best is not None:
        (target / CHOSEN_BY).write_text(json.dumps({"chosen_on": "validation"}))
        facts["best_epoch"] = round(best["epoch"], 2)
        facts["validation_accuracy"] = round(best["eval_accuracy"], 4)
        say(f"the best epoch: {facts['best_epoch']:g}, accuracy {best['eval_accuracy']:.1%}")
    write_card(target, kind="model", format="hf", facts=facts)
