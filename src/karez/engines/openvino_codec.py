"""Text as tokens and back, by OpenVINO's tokenizer of a model."""

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
        begun = str(plain.pop()["content"]) if goes_on else ""
        try:
            text: str = self._tokenizer.apply_chat_template(
                plain, add_generation_prompt=True, tools=list(tools) or None
            )
        except RuntimeError as error:
            raise BadField(f"the model's chat template refuses these messages: {error}") from error
        return self._tokens(text + begun, add_special_tokens=False)

    def decode(self, tokens: Sequence[int]) -> str:
        """As generation.Codec."""
        text: str = self._tokenizer.decode(list(tokens)) if tokens else ""
        return text

    def _tokens(self, text: str, *, add_special_tokens: bool) -> list[int]:
        found = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        tokens: list[int] = found.input_ids.data[0].tolist()
        return tokens
