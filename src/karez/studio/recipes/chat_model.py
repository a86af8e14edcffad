"""A chat model from a Hugging Face folder, and rows as token tensors. On nodes only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from karez.core.errors import BrokenArtifact
from karez.runtime.device import computing_dtype, memory_full
from karez.studio.recipes.row_lengths import Encoded

IGNORED = -100
"""Label of positions that carry no loss: torch's CrossEntropyLoss default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Token tensors of some rows. Shapes: B rows, L positions, padded on the right."""

    tokens_BL: torch.Tensor
    mask_BL: torch.Tensor
    labels_BL: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return Batch(
            tokens_BL=self.tokens_BL.to(device),
            mask_BL=self.mask_BL.to(device),
            labels_BL=self.labels_BL.to(device),
        )


def load(path: Path, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """(tokenizer, model on a device) of a folder. Raises BrokenArtifact, DeviceMemoryFull."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        raise BrokenArtifact(name=str(path), problem=f"no model could be read: {error}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    try:
        return tokenizer, model.to(device)
    except torch.OutOfMemoryError as error:
        raise memory_full(error, device) from error


def best_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """Return the type that was asked for, or for `auto` the one that the device computes in."""
    if wanted == "auto":
        return computing_dtype(device)
    dtype: torch.dtype = getattr(torch, wanted)
    return dtype


def encode(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> Encoded:
    """Tokens of a whole row, and how many of them are the prompt."""
    prompt = tokenizer.apply_chat_template(
        list(messages[:-1]), add_generation_prompt=True, return_dict=False
    )
    answer = tokenizer(messages[-1]["content"] + tokenizer.eos_token, add_special_tokens=False)
    return prompt + answer["input_ids"], len(prompt)


def collate(tokenizer: Any, rows: Sequence[tuple[list[int], int]]) -> Batch:
    """Rows of different length as one batch."""
    length = max((len(tokens) for tokens, _ in rows), default=1)
    tokens_BL = torch.full((len(rows), length), tokenizer.pad_token_id)
    labels_BL = torch.full((len(rows), length), IGNORED)
    mask_BL = torch.zeros((len(rows), length), dtype=torch.long)
    for number, (tokens, prompt) in enumerate(rows):
        row = torch.tensor(tokens)
        tokens_BL[number, : len(tokens)] = row
        mask_BL[number, : len(tokens)] = 1
        labels_BL[number, prompt : len(tokens)] = row[prompt:]
    return Batch(tokens_BL=tokens_BL, mask_BL=mask_BL, labels_BL=labels_BL)


class AnswerLoss:
    """Mean cross-entropy of the answers' tokens."""

    def __init__(self, model: Any) -> None:
        """Find out how the logits are made: mostly by a head after a body.

        Then the head runs only where there is a label. Models that scale or cap their logits, or
        have no such parts, are run as a whole.
        """
        self._model = model
        self._base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._is_split = self._has_plain_head()

    def __call__(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch."""
        wanted_BL = batch.labels_BL[:, 1:] != IGNORED
        if self._is_split:
            logits_NV = self._split(batch.tokens_BL, batch.mask_BL, wanted_BL)
        else:
            logits_NV = self._whole(batch.tokens_BL, batch.mask_BL, wanted_BL)
        labels_N = batch.labels_BL[:, 1:][wanted_BL]
        return torch.nn.functional.cross_entropy(logits_NV.float(), labels_N)

    def _split(
        self, tokens_BL: torch.Tensor, mask_BL: torch.Tensor, wanted_BL: torch.Tensor
    ) -> torch.Tensor:
        body, head = self._base.base_model, self._base.get_output_embeddings()
        hidden_BLD = body(input_ids=tokens_BL, attention_mask=mask_BL).last_hidden_state
        logits_NV: torch.Tensor = head(hidden_BLD[:, :-1][wanted_BL])
        return logits_NV

    def _whole(
        self, tokens_BL: torch.Tensor, mask_BL: torch.Tensor, wanted_BL: torch.Tensor
    ) -> torch.Tensor:
        logits_BLV: torch.Tensor = self._model(input_ids=tokens_BL, attention_mask=mask_BL).logits
        return logits_BLV[:, :-1][wanted_BL]

    @torch.no_grad()
    def _has_plain_head(self) -> bool:
        head, body = self._base.get_output_embeddings(), self._base.base_model
        if head is None or body is self._base:
            return False
        device = next(self._base.parameters()).device
        tokens_BL = torch.arange(1, 5, device=device)[None]
        mask_BL, wanted_BL = torch.ones_like(tokens_BL), torch.ones_like(tokens_BL)[:, 1:].bool()
        is_training = self._model.training
        self._model.eval()  # dropout would make them differ
        try:
            split_NV = self._split(tokens_BL, mask_BL, wanted_BL)
            whole_NV = self._whole(tokens_BL, mask_BL, wanted_BL)
        finally:
            self._model.train(is_training)
        return split_NV.shape == whole_NV.shape and torch.allclose(
            split_NV.float(), whole_NV.float(), rtol=1e-3, atol=1e-3
        )
