"""Text as tokens and back, by a Hugging Face tokenizer."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from karez.engines.generation import BadField


class TokenizerCodec:
    """A generation.Codec."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        """Use a tokenizer, of a model that knows so many tokens."""
        self._tokenizer, self._size = tokenizer, size

    @property
    def size(self) -> int:
        """As generation.Codec."""
        return self._size

    def encode(self, text: str) -> Sequence[int]:
        """As generation.Codec."""
        tokens: list[int] = self._tokenizer(text)["input_ids"]
        return tokens

    def chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], *, goes_on: bool
    ) -> Sequence[int]:
        """As generation.Codec."""
        if not self._tokenizer.chat_template:
            raise BadField("this model has no chat template; use /v1/completions")
        try:
            tokens: list[int] = self._tokenizer.apply_chat_template(
                [plain_message(one) for one in messages],
                tools=list(tools) or None,
                add_generation_prompt=not goes_on,
                continue_final_message=goes_on,
                return_dict=False,
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise BadField(f"the model's chat template refuses these messages: {error}") from error
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """As generation.Codec."""
        text: str = self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def plain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose content is one text, as templates know it. Raises BadField."""
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    if len(texts) < len(content) or not all(isinstance(text, str) for text in texts):
        raise BadField("this model reads text alone: content is a text, or parts of type text")
    return {**message, "content": "".join(map(str, texts))}
