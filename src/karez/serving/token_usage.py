"""Tokens of an answer, as engines report them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, kw_only=True)
class TokenUsage:
    """Tokens of one answer."""

    prompt: int = 0
    completion: int = 0
    """Of a stream that has not ended: the pieces that were passed on, each of which is a token."""

    def read(self, body: Any) -> bool:
        """Read the usage of an answer or an event; returns whether it tells any.

        OpenAI's completions have it as `usage`, its responses in `response`, Anthropic's messages
        in `message` at the beginning of a stream and as `usage` later.
        """
        if not isinstance(body, Mapping):
            return False
        for part in (body, body.get("response"), body.get("message")):
            usage = part.get("usage") if isinstance(part, Mapping) else None
            if isinstance(usage, Mapping):
                self.prompt = _first(usage, ("prompt_tokens", "input_tokens"), self.prompt)
                names = ("completion_tokens", "output_tokens")
                self.completion = _first(usage, names, self.completion)
                return True
        return False


def _first(usage: Mapping[str, Any], names: tuple[str, str], default: int) -> int:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return default
