"""A classifier of texts as a Hugging Face folder, and texts as its tokens. On nodes only."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from karez.core.errors import BadRequest, BrokenArtifact
from karez.engines.pooled_classifier import (
    PooledClassifier,
    has_pooling,
    is_pooled_classifier,
)
from karez.runtime.device import memory_full

CHOSEN_BY = "chosen_by.json"
"""File of a model whose epoch was chosen on validation rows."""
HEAD = "ForSequenceClassification"
"""How the names of such models end in a folder's config.json."""


def is_classifier(folder: Path) -> bool:
    """Whether a folder holds a model that names labels."""
    if is_pooled_classifier(folder):
        return True
    config = folder / "config.json"
    if not config.is_file():
        return False
    try:
        told = json.loads(config.read_text())
    except ValueError:
        return False
    names = told.get("architectures") if isinstance(told, dict) else None
    return any(str(name).endswith(HEAD) for name in names or ())


def load_classifier(folder: Path, device: torch.device) -> tuple[Any, Any]:
    """(tokenizer, model of float32 on a device) of a trained classifier's folder.

    Raises:
        BrokenArtifact: The folder has no such model.
        DeviceMemoryFull: The device has no memory for it.
    """

    def model() -> Any:
        if is_pooled_classifier(folder):
            return PooledClassifier.load(folder)
        return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)

    return _loaded(folder, device, model)


def new_classifier(folder: Path, device: torch.device, labels: Sequence[str]) -> tuple[Any, Any]:
    """(tokenizer, model of float32 on a device) whose last layer is still to be trained.

    A model that was trained to pool its vectors is classified by these; of another, transformers
    knows how.

    Raises:
        BrokenArtifact: The folder has no such model.
        DeviceMemoryFull: The device has no memory for it.
    """

    def model() -> Any:
        if has_pooling(folder):
            return PooledClassifier.new(folder, labels)
        return AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype=torch.float32,
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
            num_labels=len(labels),
            problem_type="single_label_classification",
            ignore_mismatched_sizes=True,
        )

    return _loaded(folder, device, model)


def _loaded(folder: Path, device: torch.device, load: Callable[[], Any]) -> tuple[Any, Any]:
    transformers.logging.set_verbosity_error()  # it warns of the layer that is new
    transformers.logging.disable_progress_bar()
    try:
        tokenizer, model = AutoTokenizer.from_pretrained(folder), load()
    except (OSError, ValueError, KeyError) as error:
        problem = f"no classifier could be read: {error}"
        raise BrokenArtifact(name=str(folder), problem=problem) from error
    tokenizer.padding_side = "right"  # as vectors are pooled, and as a service pads
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    config = model.config.get_text_config()
    if config.pad_token_id is None:  # positions of some models were counted from another already
        config.pad_token_id = tokenizer.pad_token_id
    try:
        return tokenizer, model.to(device)
    except torch.OutOfMemoryError as error:
        raise memory_full(error, device) from error


def last_layer(model: Any) -> list[torch.nn.Parameter]:
    """Parameters of the layer that names the labels, which begin without knowledge."""
    body = model.body if isinstance(model, PooledClassifier) else model.base_model
    known = {id(parameter) for parameter in body.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in known]


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
