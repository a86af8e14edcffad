"""Tokens of an answer, as engines report them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_TOKENS = 2**31 - 1
"""Of one answer: an engine that tells more is not believed."""
_CACHED = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Anthropic's messages count these beside `input_tokens`; OpenAI's within `prompt_tokens`."""


@dataclass(slots=True, kw_only=True)
class TokenUsage:
    """Tokens of one answer."""

    prompt: int = 0
    cached: int = 0
    """Tokens of the prompt that the engine had computed before."""
    completion: int = 0
    """Of a stream that has not ended: the pieces that were passed on, each of which is a token."""

    def read(self, body: Any) -> bool:
        """Read the usage of an answer or an event; returns whether it tells any.

        OpenAI's completions have it as `usage`, its responses in `response`, Anthropic's messages
        in `message` at the beginning of a stream and as `usage` later.
        """
        if not isinstance(body, dict):
            return False
        usage = body.get("usage")
        if type(usage) is dict:  # what most answers have, without the care below
            prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if type(prompt) is int and type(completion) is int:
                self.prompt = min(max(0, prompt), MAX_TOKENS)
                self.completion = min(max(0, completion), MAX_TOKENS)
                details = usage.get("prompt_tokens_details")
                if details is not None:
                    self._read_cached(details)
                return True
        return self._read_other(body)

    def _read_other(self, body: Mapping[str, Any]) -> bool:
        for part in (body, body.get("response"), body.get("message")):
            usage = part.get("usage") if isinstance(part, dict) else None
            if isinstance(usage, dict):
                prompt = _first(usage, ("prompt_tokens", "input_tokens"), -1)
                if prompt >= 0:
                    beside = [_first(usage, (name,), 0) for name in _CACHED]
                    self.prompt = min(prompt + sum(beside), MAX_TOKENS)
                    self.cached = min(beside[0], self.prompt)
                    details = usage.get("prompt_tokens_details", usage.get("input_tokens_details"))
                    self._read_cached(details)
                names = ("completion_tokens", "output_tokens")
                self.completion = _first(usage, names, self.completion)
                return True
        return False

    def _read_cached(self, details: Any) -> None:
        """Read how much of the prompt was cached, as OpenAI's APIs tell it."""
        if isinstance(details, dict):
            self.cached = min(_first(details, ("cached_tokens",), self.cached), self.prompt)


def _first(usage: Mapping[str, Any], names: tuple[str, ...], default: int) -> int:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return min(value, MAX_TOKENS)
    return default
