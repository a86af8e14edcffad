"""A classifier of texts as a Hugging Face folder, and texts as its tokens. On nodes only."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from karez.core.errors import BadRequest, BrokenArtifact
from karez.runtime.device import memory_full

HEAD = "ForSequenceClassification"
"""How the names of such models end in a folder's config.json."""


def is_classifier(folder: Path) -> bool:
    """Whether a folder holds a model that names labels."""
    config = folder / "config.json"
    if not config.is_file():
        return False
    try:
        told = json.loads(config.read_text())
    except ValueError:
        return False
    names = told.get("architectures") if isinstance(told, dict) else None
    return any(str(name).endswith(HEAD) for name in names or ())


def load_classifier(
    folder: Path, device: torch.device, labels: Sequence[str] = ()
) -> tuple[Any, Any]:
    """(tokenizer, model of float32 on a device) of a folder.

    Args:
        folder: A model; with `labels`, one that may have no head yet, and gets a new one.
        device: Where it computes.
        labels: Names of its classes; empty: those that it has.

    Raises:
        BrokenArtifact: The folder has no such model.
        DeviceMemoryFull: The device has no memory for it.
    """
    more: dict[str, Any] = {}
    if labels:
        more = {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: number for number, label in enumerate(labels)},
            "num_labels": len(labels),
            "problem_type": "single_label_classification",
            "ignore_mismatched_sizes": True,
        }
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, **more
        )
    except (OSError, ValueError, KeyError) as error:
        problem = f"no classifier could be read: {error}"
        raise BrokenArtifact(name=str(folder), problem=problem) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    try:
        return tokenizer, model.to(device)
    except torch.OutOfMemoryError as error:
        raise memory_full(error, device) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Texts as tokens, none longer than the limit."""

    tokens: list[list[int]]
    limit: int
    """Tokens that a text may have."""
    cut: int
    """Texts that lost their end."""

    def notice(self) -> str:
        """What should be known of it; empty if every text is whole."""
        if not self.cut:
            return ""
        return (
            f"of {len(self.tokens):,} rows {self.cut:,} lost the end of their text: texts may "
            f"have {self.limit:,} tokens"
        )

    def facts(self) -> dict[str, int]:
        """The same for a card."""
        return {"max_tokens": self.limit, "rows_cut": self.cut}


def tokens_of(
    tokenizer: Any, texts: Sequence[str], *, longest: int, max_tokens: int, max_cut: float
) -> Texts:
    """Cut texts into tokens.

    Args:
        tokenizer: Of the model.
        texts: All of them.
        longest: The longest text that the model reads, in tokens.
        max_tokens: The length that was asked for; 0: what the model reads.
        max_cut: Greatest share of texts that may lose their end.

    Raises:
        BadRequest: More would.
    """
    limit = min(max_tokens or longest, longest)
    whole = tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
    cut = sum(len(tokens) > limit for tokens in whole)
    if cut > max_cut * len(texts):
        raise BadRequest(
            problem=f"{cut:,} of {len(texts):,} rows are longer than the {limit:,} tokens that a "
            f"text may have; the longest has {max(map(len, whole)):,}",
            fix="Shorten the texts, or let more be cut with --set max_cut=SHARE.",
        )
    kept = tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"] if cut else whole
    return Texts(tokens=kept, limit=limit, cut=cut)
