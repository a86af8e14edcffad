"""Usage as engines tell it, and as they should not."""

from typing import Any

import pytest

from karez.serving.token_usage import MAX_TOKENS, TokenUsage


@pytest.mark.parametrize(
    ("told", "prompt", "completion"),
    [
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 2}}, 3, 2),
        ({"usage": {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 4}}, 7, 2),
        ({"response": {"usage": {"input_tokens": 3, "output_tokens": 2}}}, 3, 2),
        ({"message": {"usage": {"input_tokens": 3}}}, 3, 1),
        ({"usage": {"prompt_tokens": -3, "completion_tokens": -2}}, 0, 0),
        ({"usage": {"prompt_tokens": 2**64 - 1, "completion_tokens": 2}}, MAX_TOKENS, 2),
        ({"usage": {"input_tokens": 2**64 - 1, "cache_read_input_tokens": 5}}, MAX_TOKENS, 1),
        ({"usage": {"prompt_tokens": 1.5, "completion_tokens": True}}, 9, 1),
        ({"usage": []}, 9, 1),
        ([1], 9, 1),
        (None, 9, 1),
    ],
)
def test_what_engines_tell_is_bounded(told: Any, prompt: int, completion: int) -> None:
    usage = TokenUsage(prompt=9, completion=1)
    usage.read(told)
    assert (usage.prompt, usage.completion) == (prompt, completion)
