"""Answers that keep to a JSON schema, through llguidance."""

from collections.abc import Sequence
from typing import Any

import llguidance.torch
import numpy as np
import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer

from karez.engines.generation import BadField


class SchemaMatcher:
    """What may follow in one answer."""

    def __init__(self, tokens: Any, schema: str) -> None:
        """Follow a schema, given as text; `tokens` are the tokenizer's, as `vocabulary` makes them.

        Raises:
            BadField: The schema is none, or none that can be kept to.
        """
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema)
            self._matcher = LLMatcher(tokens, grammar)
        except ValueError as error:
            raise BadField(f"the JSON schema cannot be kept to: {error}") from error
        if problem := self._matcher.get_error():
            raise BadField(f"the JSON schema cannot be kept to: {problem}")
        self._seen = 0

    def restrict(self, scores_V: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
        """As token_choice.Schema."""
        new = list(tokens[self._seen :])
        if new:
            self._matcher.consume_tokens(new)
            self._seen += len(new)
        mask = llguidance.torch.allocate_token_bitmask(1, len(scores_V))
        llguidance.torch.fill_next_token_bitmask(self._matcher, mask)
        bits = np.unpackbits(mask.numpy().view(np.uint8), bitorder="little")
        may_V = torch.from_numpy(bits[: len(scores_V)]).bool()
        return scores_V.masked_fill(~may_V, -torch.inf)


def vocabulary(tokenizer: Any, size: int) -> Any:
    """The tokens of a Hugging Face tokenizer for matchers of a model with so many of them."""
    return from_tokenizer(tokenizer, n_vocab=size)
