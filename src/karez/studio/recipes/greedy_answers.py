"""Greedy answers of a model to prompts, and how sure it was of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model answers."""

    text: str
    confidence: float
    """Probability that it gives to this answer: the product over its tokens, and to its end."""


def greedy_answers(
    tokenizer: Any, model: Any, prompts: Sequence[Sequence[int]], new_tokens: int
) -> list[Answer]:
    """Answer prompts of token ids, at most `new_tokens` each. They are padded on the left."""
    length = max(len(prompt) for prompt in prompts)
    pad = tokenizer.pad_token_id
    tokens_BL = torch.tensor([[pad] * (length - len(p)) + list(p) for p in prompts])
    mask_BL = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(
        input_ids=tokens_BL.to(model.device),
        attention_mask=mask_BL.to(model.device),
        max_new_tokens=new_tokens,
        do_sample=False,
        pad_token_id=pad,
        output_logits=True,
        return_dict_in_generate=True,
    )
    new_BN = out.sequences[:, length:]
    logs_B = _log_chances(new_BN, out.logits, _ends(model))
    texts = tokenizer.batch_decode(new_BN, skip_special_tokens=True)
    return [
        Answer(text=text.strip(), confidence=float(log.exp().nan_to_num(0.0)))
        for text, log in zip(texts, logs_B, strict=True)
    ]


def _log_chances(
    new_BN: torch.Tensor, logits_NBV: Sequence[torch.Tensor], ends: Sequence[int]
) -> torch.Tensor:
    """(B,) log of the chance of each answer, its first end included; what follows is padding."""
    logs_B = torch.zeros(new_BN.shape[0])
    is_open_B = torch.ones(new_BN.shape[0], dtype=torch.bool)
    for place, logits_BV in enumerate(logits_NBV):
        tokens_B = new_BN[:, place].to(logits_BV.device)
        chosen_B = logits_BV.float().log_softmax(-1).gather(1, tokens_B[:, None])[:, 0].cpu()
        logs_B += torch.where(is_open_B, chosen_B, 0.0)
        for end in ends:
            is_open_B &= tokens_B.cpu() != end
    return logs_B


def _ends(model: Any) -> Sequence[int]:
    ends = model.generation_config.eos_token_id
    if ends is None:
        return ()
    return (ends,) if isinstance(ends, int) else tuple(ends)
