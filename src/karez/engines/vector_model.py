"""Vectors, scores and labels of texts from a Hugging Face folder, on any device."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from karez.core.errors import BrokenArtifact

LONGEST = 1 << 20
"""Tokens of the longest text of a model that has no limit of its own."""
BATCH = 32
"""Texts that are computed at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """How the vector of a text comes from those of its tokens, as sentence-transformers says it."""

    is_first: bool = False
    """The first token's, instead of the mean of all."""
    is_last: bool = False
    is_normal: bool = True
    """Whether it has the length 1."""

    @classmethod
    def of(cls, folder: Path) -> "Pooling":
        """What a folder says; the mean, if it says nothing.

        Raises:
            BrokenArtifact: It pools in a way that is not computed here.
        """
        file = folder / "1_Pooling" / "config.json"
        if not file.exists():
            return cls()
        told = json.loads(file.read_text())
        modules = folder / "modules.json"
        names = modules.read_text() if modules.exists() else ""
        modes = [name for name in told if name.startswith("pooling_mode_") and told[name] is True]
        mode = told.get("pooling_mode") or (modes[0] if len(modes) == 1 else "+".join(modes))
        known = {"": "mean", "pooling_mode_mean_tokens": "mean", "mean": "mean"}
        known |= {"pooling_mode_cls_token": "first", "cls": "first"}
        known |= {"pooling_mode_lasttoken": "last", "lasttoken": "last"}
        if mode not in known:
            problem = f"it pools vectors by {mode}; mean, cls and lasttoken are computed here"
            raise BrokenArtifact(name=str(folder), problem=problem)
        return cls(
            is_first=known[mode] == "first",
            is_last=known[mode] == "last",
            is_normal="Normalize" in names,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersVectors:
    """A vector_server.VectorModel. Shapes: B texts, L tokens, D dimensions."""

    model: Any
    tokenizer: Any
    pooling: Pooling
    most: int
    """Longest text, in tokens; the rest is not read."""

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], int]:
        """As VectorModel."""
        return self._by_length(texts, self._vectors)

    def _vectors(self, inputs: Any) -> torch.Tensor:
        hidden_BLD = self.model(**inputs).last_hidden_state.float()
        vectors_BD = pooled(self.pooling, hidden_BLD, inputs["attention_mask"])
        return torch.nn.functional.normalize(vectors_BD) if self.pooling.is_normal else vectors_BD

    @torch.inference_mode()
    def score(self, query: str, documents: Sequence[str]) -> tuple[Sequence[float], int]:
        """As VectorModel: a cross-encoder's first logit, as a probability."""
        found: list[float] = []
        read = 0
        for begin in range(0, len(documents), BATCH):
            some = list(documents[begin : begin + BATCH])
            inputs = self._inputs([query] * len(some), some)
            read += int(inputs["attention_mask"].sum())
            logits_BC = self.model(**inputs).logits.float()
            found += logits_BC[:, -1].sigmoid().tolist()
        return found, read

    @torch.inference_mode()
    def classify(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], int]:
        """As VectorModel."""
        return self._by_length(texts, lambda given: self.model(**given).logits.float().softmax(-1))

    def _by_length(
        self, texts: Sequence[str], compute: Callable[[Any], torch.Tensor]
    ) -> tuple[npt.NDArray[np.float32], int]:
        """(a row for each text, tokens that were read); texts of about one length go together."""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        found: list[Any] = [None] * len(texts)
        read = 0
        for begin in range(0, len(order), BATCH):
            some = order[begin : begin + BATCH]
            inputs = self._inputs([texts[number] for number in some])
            read += int(inputs["attention_mask"].sum())
            for number, row in zip(some, compute(inputs).cpu().numpy(), strict=True):
                found[number] = row
        return np.stack(found), read

    @property
    def labels(self) -> Sequence[str]:
        """As VectorModel."""
        named = self.model.config.id2label
        return tuple(str(named[number]) for number in range(self.model.config.num_labels))

    def _inputs(self, *texts: list[str]) -> Any:
        self.tokenizer.padding_side = "right"
        return self.tokenizer(
            *texts, padding=True, truncation=True, max_length=self.most, return_tensors="pt"
        ).to(self.model.device)


def pooled(pooling: Pooling, hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """(B, D) vectors of texts that are padded on the right, of any length."""
    if pooling.is_first:
        return hidden_BLD[:, 0]
    if pooling.is_last:
        last_B = mask_BL.sum(1) - 1
        return hidden_BLD[torch.arange(len(last_B), device=last_B.device), last_B]
    weights_BL1 = mask_BL[..., None].to(hidden_BLD.dtype)
    return (hidden_BLD * weights_BL1).sum(1) / weights_BL1.sum(1).clamp(min=1)


def longest_text(model: Any, tokenizer: Any) -> int:
    """The longest text that a model reads, in tokens; some count positions from their padding."""
    table = next((m for n, m in model.named_modules() if n.endswith("position_embeddings")), None)
    padding = getattr(table, "padding_idx", None)
    taken = 0 if padding is None else padding + 1
    context = context_of(model)
    limits = [tokenizer.model_max_length, *([] if context is None else [context - taken])]
    return int(min(LONGEST, *limits))


def context_of(model: Any) -> int | None:
    """Positions that a model was made for; None: its type has no limit."""
    length: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return None if length is None or length <= 0 else length
