"""Which token comes next, for rows of one batch that each have their own settings."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
)

from karez.engines.generation import Asked

LIKELIEST = 2048
"""Tokens that are sorted first for `top_p`: most of the probability is in fewer."""


class Schema(Protocol):
    """What may follow by a JSON schema."""

    def restrict(self, scores_V: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
        """The scores after these tokens of an answer; minus infinity for what may not follow."""
        ...


def choose(scores_V: torch.Tensor, asked: Asked, step: int) -> int:
    """The token that a request draws.

    It is the likeliest of the scores with noise of a Gumbel distribution, which draws as the
    probabilities say. With a seed, the noise of a step is always the same.

    Args:
        scores_V: (V,) logits, on the CPU.
        asked: The request.
        step: Tokens that it has drawn before.

    Source: C. J. Maddison, D. Tarlow, T. Minka, "A* Sampling", NeurIPS 2014, section 2.
    """
    if asked.temperature <= 0:
        return int(scores_V.argmax())
    scores_V = scores_V.float() / asked.temperature
    if 0 < asked.top_k < len(scores_V):
        scores_V = _keep(scores_V, torch.topk(scores_V, asked.top_k).indices)
    if asked.top_p < 1:
        scores_V = _keep(scores_V, _nucleus(scores_V, asked.top_p))
    noise_V = torch.empty_like(scores_V).exponential_(generator=_generator(asked.seed, step))
    return int((scores_V - noise_V.log()).argmax())


def _keep(scores_V: torch.Tensor, kept_K: torch.Tensor) -> torch.Tensor:
    found_V = torch.full_like(scores_V, -torch.inf)
    found_V[kept_K] = scores_V[kept_K]
    return found_V


def _nucleus(scores_V: torch.Tensor, top_p: float) -> torch.Tensor:
    """The fewest tokens that have this probability together."""
    whole = scores_V.logsumexp(0)
    for count in (min(LIKELIEST, len(scores_V)), len(scores_V)):
        best_K, index_K = torch.topk(scores_V, count)
        mass_K = (best_K - whole).exp().cumsum(0)
        if count == len(scores_V) or mass_K[-1] >= top_p:
            break
    return index_K[: int((mass_K < top_p).sum()) + 1]


def _generator(seed: int | None, step: int) -> torch.Generator | None:
    if seed is None:
        return None
    digest = hashlib.blake2b(f"{seed}.{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


class TokenChoice(ContinuousBatchingLogitsProcessor):
    """Chooses the tokens of those rows of a batch that are not just the likeliest.

    transformers' own processors sort all scores of all rows; its greedy choice, the argmax, is
    what this one works with: a chosen token is the only one left.
    """

    supported_kwargs: ClassVar[dict[str, type]] = {"asked": Asked}
    ignored_kwargs: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        """Choose for nobody yet."""
        self.schemas: dict[str, Schema] = {}
        """Request -> its schema."""
        self._rows: list[tuple[str, Asked, Sequence[int]]] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Nothing is kept in tensors."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: Sequence[Any]) -> torch.Tensor:
        """Note which request each row is of."""
        states = [one.state for one in requests_with_new_token]
        self._rows = [
            (state.request_id, state.logit_processor_kwargs["asked"], state.generated_tokens)
            for state in states
        ]
        return torch.zeros(len(states), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Leave one token of each row that is drawn; scores are (rows, V)."""
        del tensor_arg
        for row, (ident, asked, tokens) in enumerate(self._rows):
            schema = self.schemas.get(ident)
            if asked.temperature <= 0 and schema is None:
                continue
            scores_V = scores[row].float().cpu()
            if schema is not None:
                scores_V = schema.restrict(scores_V, tokens)
            chosen = choose(scores_V, asked, len(tokens))
            scores[row] = -torch.inf
            scores[row, chosen] = 0.0
        return scores


def kwargs_of(asked: Asked) -> Mapping[str, Any]:
    """How a request is given to `TokenChoice`."""
    return {"asked": asked}
