"""Lets a classifier name the labels of rows, and compares them with those expected."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel, AutoTokenizer

from karez.core.chat_rows import Row
from karez.core.errors import BrokenArtifact
from karez.engines.vector_model import Pooling, TransformersVectors, longest_text
from karez.studio.calibration import calibration
from karez.studio.confidence_intervals import wilson
from karez.studio.label_scores import label_scores
from karez.studio.recipes.classifier import load_classifier
from karez.studio.recipes.linear_head import LinearHead, fit_linear_head
from karez.studio.recipes.recipe_io import notice, tell
from karez.studio.selective_answers import Judged
from karez.studio.text_labels import label_of, labels_of, text_of

TOLD_EVERY = 512
"""Texts between two tellings of the progress."""


class Classifies(Protocol):
    """What names labels."""

    @property
    def labels(self) -> Sequence[str]:
        """Their names, in the order of their chances."""
        ...

    def classify(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], int]:
        """(B, C) chances of the labels, and the tokens that were read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearOnVectors:
    """A linear classifier on a model's vectors; a Classifies."""

    vectors: TransformersVectors
    head: LinearHead
    labels: Sequence[str]

    def classify(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], int]:
        """As Classifies."""
        vectors_BD, read = self.vectors.embed(texts)
        return self.head.chances(vectors_BD), read


def load_trained(folder: Path, device: torch.device) -> Classifies:
    """A classifier of a folder, which computes what a service of it does."""
    tokenizer, model = load_classifier(folder, device)
    return TransformersVectors(
        model=model.eval(),
        tokenizer=tokenizer,
        pooling=Pooling(),
        most=longest_text(model, tokenizer),
    )


def knows_labels(classifier: Classifies, rows: Sequence[Row]) -> bool:
    """Whether a classifier has one of the labels of some rows at least."""
    return bool(set(classifier.labels) & {label_of(row) for row in rows})


def linear_on(folder: Path, device: torch.device, rows: Sequence[Row]) -> tuple[Classifies, float]:
    """(a linear classifier on the vectors of a folder's model, its inverse penalty) of rows."""
    labels = labels_of(rows)
    numbers = {label: number for number, label in enumerate(labels)}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    except (OSError, ValueError, KeyError) as error:
        problem = f"no model could be read: {error}"
        raise BrokenArtifact(name=str(folder), problem=problem) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    vectors = TransformersVectors(
        model=model,
        tokenizer=tokenizer,
        pooling=Pooling.of(folder),
        most=longest_text(model, tokenizer),
    )
    found = []
    for at in range(0, len(rows), TOLD_EVERY):
        tell(f"reading training rows with {folder.name}", at, len(rows))
        found.append(vectors.embed([text_of(row) for row in rows[at : at + TOLD_EVERY]])[0])
    numbered = [numbers[label_of(row)] for row in rows]
    head, strength = fit_linear_head(np.concatenate(found), numbered, len(labels), device)
    return LinearOnVectors(vectors=vectors, head=head, labels=labels), strength


@dataclass(slots=True, kw_only=True)
class Labelled:
    """What labels were named of rows."""

    losses: list[float] = field(default_factory=list)
    unknown: int = 0
    """Rows with a label that the classifier does not know: they count as wrong."""
    expected: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """Return means and intervals, the scores of each label, and all answers."""
        right = sum(one.is_right for one in self.judged)
        low, high = wilson(right, len(self.judged))
        scores = label_scores(self.expected, self.found)
        answers = [
            {"expected": e, "answered": f, "confidence": float(f"{one.confidence:.6g}")}
            for e, f, one in zip(self.expected, self.found, self.judged, strict=True)
        ]
        return {
            # of rows whose label is known: another has no chance that a loss could be taken of
            "loss": sum(self.losses) / len(self.losses) if self.losses else 0.0,
            "unknown_labels": self.unknown,
            "accuracy": right / len(self.judged),
            "accuracy_95": [low, high],
            "right": right,
            "f1": scores["macro_f1"],
            **scores,
            "calibration": calibration(self.judged),
            "answers": answers,
        }


def labelled(classifier: Classifies, name: str, rows: Sequence[Row]) -> Labelled:
    """Name the labels of rows; one of a label that the classifier does not know is wrong."""
    done, numbers = Labelled(), {label: n for n, label in enumerate(classifier.labels)}
    floor = float(np.finfo(np.float32).tiny)
    unknown = set()
    for at in range(0, len(rows), TOLD_EVERY):
        tell(f"answering with {name}", at, len(rows))
        some = rows[at : at + TOLD_EVERY]
        chances_BC, _ = classifier.classify([text_of(row) for row in some])
        for row, chances_C in zip(some, chances_BC, strict=True):
            label, best = label_of(row), int(chances_C.argmax())
            if label not in numbers:
                unknown.add(label)
                done.unknown += 1
            else:
                chance = max(float(chances_C[numbers[label]]), floor)
                done.losses.append(-float(np.log(chance)))
            done.expected.append(label)
            done.found.append(classifier.labels[best])
            is_right = classifier.labels[best] == label
            done.judged.append(Judged(confidence=float(chances_C[best]), is_right=is_right))
    if unknown:
        notice(f"{name} does not know {len(unknown)} of the labels, such as {min(unknown)!r}")
    return done
