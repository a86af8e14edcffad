"""Greedy answers of a model to prompts, and how sure it was of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model answers."""

    text: str
    confidence: float
    """Probability that it gives to this answer: the product over its tokens, and to its end; 0 of
    an answer that was cut before it ended."""


def greedy_answers(
    tokenizer: Any, model: Any, prompts: Sequence[Sequence[int]], new_tokens: int
) -> list[Answer]:
    """Answer prompts of token ids, at most `new_tokens` each. They are padded on the left.

    What the model's folder says of beams, penalties and the like is not asked for: only its ends.
    """
    length = max(len(prompt) for prompt in prompts)
    pad, ends = tokenizer.pad_token_id, model.generation_config.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=pad)
    tokens_BL = torch.tensor([[pad] * (length - len(p)) + list(p) for p in prompts])
    mask_BL = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(
        input_ids=tokens_BL.to(model.device),
        attention_mask=mask_BL.to(model.device),
        max_new_tokens=new_tokens,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    new_BN = out.sequences[:, length:]
    logs_B = _log_chances(new_BN, out.logits, _listed(ends))
    texts = tokenizer.batch_decode(new_BN, skip_special_tokens=True)
    return [
        Answer(text=text.strip(), confidence=float(log.exp().nan_to_num(0.0)))
        for text, log in zip(texts, logs_B, strict=True)
    ]


def _log_chances(
    new_BN: torch.Tensor, logits_NBV: Sequence[torch.Tensor], ends: Sequence[int]
) -> torch.Tensor:
    """(B,) log of the chance of each answer, its first end included; what follows is padding.

    Where a model knows ends, it is -inf of an answer that has none.
    """
    logs_B = torch.zeros(new_BN.shape[0])
    is_open_B = torch.ones(new_BN.shape[0], dtype=torch.bool)
    for place, logits_BV in enumerate(logits_NBV):
        tokens_B = new_BN[:, place].to(logits_BV.device)
        chosen_B = logits_BV.float().log_softmax(-1).gather(1, tokens_B[:, None])[:, 0].cpu()
        logs_B += torch.where(is_open_B, chosen_B, 0.0)
        for end in ends:
            is_open_B &= tokens_B.cpu() != end
    return torch.where(is_open_B, -torch.inf, logs_B) if ends else logs_B


def _listed(ends: int | Sequence[int] | None) -> Sequence[int]:
    if ends is None:
        return ()
    return (ends,) if isinstance(ends, int) else tuple(ends)
