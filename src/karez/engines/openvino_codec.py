"""Text as tokens and back, by OpenVINO's tokenizer of a model."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from karez.engines.generation import BadField
from karez.engines.text_codec import plain_message


class OpenVinoCodec:
    """A generation.Codec."""

    def __init__(self, tokenizer: Any) -> None:
        """Use OpenVINO's tokenizer of the model."""
        self._tokenizer = tokenizer
        self._size = len(tokenizer.get_vocab())
        self._lock = (
            threading.Lock()
        )  # two calls at once wait for one another, and hold Python's lock

    @property
    def size(self) -> int:
        """As generation.Codec."""
        return self._size

    def encode(self, text: str) -> Sequence[int]:
        """As generation.Codec."""
        return self._tokens(text, add_special_tokens=True)

    def chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], *, goes_on: bool
    ) -> Sequence[int]:
        """As generation.Codec."""
        plain = [plain_message(one) for one in messages]
        begun = _text_of(plain.pop()) if goes_on else ""
        try:
            with self._lock:
                text: str = self._tokenizer.apply_chat_template(
                    plain, add_generation_prompt=True, tools=list(tools) or None
                )
        except (RuntimeError, TypeError, ValueError) as error:
            raise BadField(f"the model's chat template refuses these messages: {error}") from error
        return self._tokens(text + begun, add_special_tokens=False)

    def decode(self, tokens: Sequence[int]) -> str:
        """As generation.Codec."""
        with self._lock:
            text: str = self._tokenizer.decode(list(tokens)) if tokens else ""
        return text

    def _tokens(self, text: str, *, add_special_tokens: bool) -> list[int]:
        with self._lock:
            found = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
            tokens: list[int] = found.input_ids.data[0].tolist()
        return tokens


def _text_of(message: Mapping[str, Any]) -> str:
    """What a message says so far. Raises BadField."""
    content = message.get("content")
    if not isinstance(content, str):
        raise BadField("an answer that was begun has a content")
    return content
