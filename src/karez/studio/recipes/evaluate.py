"""Recipe: held-out loss and exact-match accuracy, of a model and of the base it came from.

With a target, also the share of rows that can be answered so that it is kept. A classifier is
compared with a linear one on the vectors of its base.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from karez.core import environment
from karez.core.chat_rows import Row
from karez.core.errors import BadRequest
from karez.runtime.device import granted_device, show_device
from karez.studio.evaluation_page import evaluation_page
from karez.studio.paired_comparison import paired_report
from karez.studio.recipes.answering import Answering
from karez.studio.recipes.chat_model import best_dtype, load
from karez.studio.recipes.classifier import CHOSEN_BY, is_classifier
from karez.studio.recipes.classifying import knows_labels, labelled, linear_on, load_trained
from karez.studio.recipes.recipe_io import (
    folder,
    notice,
    read_rows,
    say,
    settings_of,
    tell,
    write_card,
)
from karez.studio.selective_report import selective
from karez.studio.settings import Evaluate
from karez.studio.typing_errors import mistyped


def main() -> None:
    """Measure each model that is there; write one report."""
    settings = settings_of(Evaluate)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    inputs = folder(environment.INPUTS)
    rows = read_rows(inputs / "data" / "held_out.jsonl")[: settings.rows]
    validation = _validation_rows(inputs / "data" / "validation.jsonl", settings)
    device = granted_device()
    labels = is_classifier(inputs / "model")
    report: dict[str, Any] = {
        "rows": len(rows),
        "measure": "the right label" if labels else "exact match of the whole answer",
        "device": show_device(device),
    }
    measure = _classified if labels else _measured
    for role in ("base", "model"):
        if (inputs / role).is_dir():
            report[role] = measure(inputs / role, rows, validation, settings, device)
            _say_measured(role, report[role], "F1 of labels" if labels else "F1 of words")
    if settings.typos:
        again = measure(inputs / "model", _mistyped(rows, settings.typos), (), settings, device)
        report["mistyped"] = _beside(settings.typos, again, report["model"])
    pair = [_right(report[role]) for role in ("base", "model") if role in report]
    if [len(right) for right in pair] == [len(rows)] * 2:  # no row was left out of one of them
        report["paired"] = paired_report(pair[0], pair[1])
        say(report["paired"]["words"])
    target = folder(environment.OUT) / "report"
    target.mkdir(exist_ok=True)
    (target / "report.json").write_text(json.dumps(report, indent=1))
    (target / "report.html").write_text(evaluation_page(report), encoding="utf-8")
    write_card(target, kind="report", format="evaluation", facts=_facts(report))


def _facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the report's card shows of it."""
    facts = {"rows": report["rows"], "device": report["device"]}
    for role in ("base", "model"):
        if role not in report:
            continue
        facts |= {f"{role}_{name}": report[role][name] for name in ("loss", "accuracy", "f1")}
        chosen = report[role].get("selective", {})
        if chosen.get("answered"):
            facts[f"{role}_coverage"] = chosen["coverage"]
            facts[f"{role}_accuracy_where_answered"] = chosen["accuracy"]
    return facts


def _mistyped(rows: Sequence[Row], share: float) -> list[Row]:
    """The rows with what users say mistyped."""
    return [
        [
            {**one, "content": mistyped(one["content"], share)} if one["role"] == "user" else one
            for one in row
        ]
        for row in rows
    ]


def _beside(share: float, told: Mapping[str, Any], without: Mapping[str, Any]) -> dict[str, Any]:
    """What the report says of mistyped rows."""
    found, right = _right(told), _right(without)
    names = ("loss", "accuracy", "accuracy_95", "f1", "answers")
    report = {"share": share, **{name: told[name] for name in names}}
    if len(found) == len(right):
        what = f"with {share:.0%} of the longer words mistyped less without"
        report["paired"] = paired_report(right, found, what)
        say(report["paired"]["words"])
    return report


def _validation_rows(path: Path, settings: Evaluate) -> list[Row]:
    """Rows that a threshold is chosen on: none where no target was set."""
    if not settings.target_accuracy:
        return []
    rows = read_rows(path) if path.is_file() and path.stat().st_size else []
    if not rows:
        raise BadRequest(
            problem="target_accuracy needs validation rows, and the data set has none",
            fix="Prepare it with `--validation 0.2`, or leave target_accuracy out.",
        )
    return rows


def _measured(
    path: Path,
    rows: Sequence[Row],
    validation: Sequence[Row],
    settings: Evaluate,
    device: torch.device,
) -> dict[str, Any]:
    """The report on a model that writes."""
    tell(f"loading {path.name}")
    tokenizer, model = load(path, best_dtype("auto", device), device)
    model.eval()
    answering = Answering(tokenizer=tokenizer, model=model, name=path.name, settings=settings)
    if not validation:
        return answering.all(rows)[0].report()
    held_out, chosen_on = answering.all(rows, validation)
    found = selective(chosen_on.judged, held_out.judged, settings.target_accuracy)
    return {**held_out.report(), "selective": found}


def _classified(
    path: Path,
    rows: Sequence[Row],
    validation: Sequence[Row],
    settings: Evaluate,
    device: torch.device,
) -> dict[str, Any]:
    """The report on a model that names labels."""
    tell(f"loading {path.name}")
    more: dict[str, Any] = {}
    trained = load_trained(path, device) if is_classifier(path) else None
    if trained is not None and knows_labels(trained, rows):
        classifier = trained
    else:
        trained_on = read_rows(path.parent / "data" / "train.jsonl")
        classifier, strength = linear_on(path, device, trained_on)
        more["measured_as"] = f"logistic regression on its vectors (C = {strength:g})"
    held_out = labelled(classifier, path.name, rows)
    if validation and (path / CHOSEN_BY).is_file():
        notice(
            f"{path.name}: its epoch was chosen on the validation rows too, which makes their "
            "threshold look better than it is; train it with keep=last"
        )
    if validation:
        chosen_on = labelled(classifier, path.name, validation)
        more["selective"] = selective(chosen_on.judged, held_out.judged, settings.target_accuracy)
    return {**held_out.report(), **more}


def _right(told: Mapping[str, Any]) -> list[bool]:
    """Which answers of a report were right."""
    return [one["answered"] == one["expected"] for one in told["answers"]]


def _say_measured(role: str, shown: Mapping[str, Any], f1_of: str) -> None:
    low, high = shown["accuracy_95"]
    say(
        f"{role}: loss {shown['loss']:.3f}, accuracy {shown['accuracy']:.1%} "
        f"(95%: {low:.1%} to {high:.1%}), {f1_of} {shown['f1']:.1%}"
    )
    if "selective" in shown:
        say(f"{role}: {shown['selective']['words']}")
