"""Recipe: held-out loss and exact-match accuracy, of a model and of the base it came from."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from karez.core import environment
from karez.core.chat_rows import Row
from karez.runtime.device import granted_device, show_device
from karez.studio.confidence_intervals import wilson
from karez.studio.recipes.chat_model import (
    AnswerLoss,
    best_dtype,
    collate,
    context_of,
    encode,
    load,
)
from karez.studio.recipes.recipe_io import (
    folder,
    notice,
    read_rows,
    say,
    settings_of,
    tell,
    write_card,
)
from karez.studio.recipes.row_lengths import fit_rows
from karez.studio.settings import Evaluate
from karez.studio.text_scores import f1


def main() -> None:
    """Measure each model that is there; write one report."""
    settings = settings_of(Evaluate)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    inputs = folder(environment.INPUTS)
    rows = read_rows(inputs / "data" / "held_out.jsonl")[: settings.rows]
    device = granted_device()
    report: dict[str, Any] = {
        "rows": len(rows),
        "measure": "exact match of the whole answer",
        "device": show_device(device),
    }
    for role in ("base", "model"):
        if (inputs / role).is_dir():
            report[role] = _measure(inputs / role, rows, settings, device)
            shown = report[role]
            low, high = shown["accuracy_95"]
            say(
                f"{role}: loss {shown['loss']:.3f}, accuracy {shown['accuracy']:.1%} "
                f"(95%: {low:.1%} to {high:.1%}), F1 of words {shown['f1']:.1%}"
            )
    target = folder(environment.OUT) / "report"
    target.mkdir(exist_ok=True)
    (target / "report.json").write_text(json.dumps(report, indent=1))
    facts = {
        f"{role}_{name}": report[role][name]
        for role in ("base", "model")
        if role in report
        for name in ("loss", "accuracy", "f1")
    }
    facts = {"rows": len(rows), "device": show_device(device), **facts}
    write_card(target, kind="report", format="evaluation", facts=facts)


@torch.inference_mode()
def _measure(
    path: Path,
    rows: Sequence[Row],
    settings: Evaluate,
    device: torch.device,
) -> dict[str, Any]:
    tell(f"loading {path.name}")
    tokenizer, model = load(path, best_dtype("auto", device), device)
    model.eval()
    fitted = fit_rows(
        [encode(tokenizer, row) for row in rows],
        max_tokens=settings.max_tokens,
        context=context_of(model),
        max_cut=settings.max_cut,
    )
    if fitted.notice():
        notice(f"{path.name}: {fitted.notice()}")
    rows, encoded = [rows[number] for number in fitted.kept], fitted.rows
    loss_of = AnswerLoss(model)
    longest = max(len(tokens) - prompt for tokens, prompt in encoded)
    new_tokens = min(longest + 1, settings.new_tokens)  # one more tells who does not end there
    losses, right, answers, scores = [], 0, [], []
    for at in range(0, len(rows), settings.batch):
        part = encoded[at : at + settings.batch]
        tell(f"answering with {path.name}", at, len(rows))
        losses += [float(loss_of(collate(tokenizer, part).to(device)))] * len(part)
        prompts = [tokens[:prompt] for tokens, prompt in part]
        given = _generate(tokenizer, model, prompts, new_tokens)
        for row, answer in zip(rows[at:], given, strict=False):
            expected = row[-1]["content"].strip()
            right += answer == expected
            scores.append(f1(answer, expected))
            answers.append({"expected": expected, "answered": answer})
    low, high = wilson(right, len(rows))
    return {
        "loss": sum(losses) / len(losses),
        "accuracy": right / len(rows),
        "accuracy_95": [low, high],
        "right": right,
        "f1": fmean(scores),
        **fitted.facts(),
        "answers": answers,
    }


def _generate(
    tokenizer: Any, model: Any, prompts: Sequence[Sequence[int]], new_tokens: int
) -> list[str]:
    """Greedy answers. Prompts are padded on the left."""
    length = max(len(prompt) for prompt in prompts)
    pad = tokenizer.pad_token_id
    tokens_BL = torch.tensor([[pad] * (length - len(p)) + list(p) for p in prompts])
    mask_BL = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
    out_BL = model.generate(
        input_ids=tokens_BL.to(model.device),
        attention_mask=mask_BL.to(model.device),
        max_new_tokens=new_tokens,
        do_sample=False,
        pad_token_id=pad,
    )
    texts = tokenizer.batch_decode(out_BL[:, length:], skip_special_tokens=True)
    return [text.strip() for text in texts]
