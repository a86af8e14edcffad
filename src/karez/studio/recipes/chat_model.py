"""A chat model from a Hugging Face folder, and rows as token tensors. On nodes only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from karez.core.errors import BrokenArtifact
from karez.runtime.device import computing_dtype, memory_full

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


def encode(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], limit: int
) -> tuple[list[int], int]:
    """Tokens of a row, and how many of them are the prompt. Too long a prompt loses its start."""
    prompt = tokenizer.apply_chat_template(
        list(messages[:-1]), add_generation_prompt=True, return_dict=False
    )
    answer = tokenizer(messages[-1]["content"] + tokenizer.eos_token, add_special_tokens=False)
    answer_ids = answer["input_ids"][: limit - 1]
    prompt = prompt[-(limit - len(answer_ids)) :]
    return prompt + answer_ids, len(prompt)


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


def loss_of(model: Any, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens. The head runs only where there is a label."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden_BLD = base.model(
        input_ids=batch.tokens_BL, attention_mask=batch.mask_BL
    ).last_hidden_state
    wanted_BL = batch.labels_BL[:, 1:] != IGNORED
    logits_NV = base.lm_head(hidden_BLD[:, :-1][wanted_BL])
    return torch.nn.functional.cross_entropy(logits_NV.float(), batch.labels_BL[:, 1:][wanted_BL])
