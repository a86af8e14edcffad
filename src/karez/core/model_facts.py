"""What of a model decides how much memory an engine needs for it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TOKENS_LENGTH = "tokenizer.ggml.tokens.length"
BYTES_OF: Mapping[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}
"""Type of weights -> bytes of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The size and shape of a transformer."""

    weights_bytes: int
    """Of its files of weights."""
    weight_bytes: float
    """Of one weight in them, on average; 0: nobody knows."""
    layers: int
    heads: int
    cached_heads: int
    """Heads whose keys and values are kept: fewer than `heads` where several share them."""
    head_width: int
    width: int
    inner: int
    """Width of its feed-forward layers."""
    vocabulary: int
    architecture: str = ""
    """Its name in the file; empty: nobody knows."""
    context: int
    """Longest text that it was made for, in tokens; 0: nobody knows."""

    @property
    def cached_values(self) -> int:
        """Numbers that are kept for each token of a text: keys and values of all layers."""
        return 2 * self.layers * self.cached_heads * self.head_width


def facts_of_config(config: Mapping[str, Any], weights_bytes: int) -> ModelFacts:
    """The facts of a Hugging Face folder, by its config.json.

    Raises:
        ValueError: It does not tell them.
    """
    nested = config.get("text_config")
    told: Mapping[str, Any] = {**config, **(nested if isinstance(nested, dict) else {})}
    layers = _first(told, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    heads = _first(told, "num_attention_heads", "n_head", "n_heads")
    width = _first(told, "hidden_size", "n_embd", "d_model", "dim")
    dtype = told.get("dtype") or told.get("torch_dtype") or ""
    return ModelFacts(
        weights_bytes=weights_bytes,
        weight_bytes=BYTES_OF.get(str(dtype), 0),
        layers=layers,
        heads=heads,
        cached_heads=_first(told, "num_key_value_heads", default=heads),
        head_width=_first(told, "head_dim", default=width // heads),
        width=width,
        inner=_first(told, "intermediate_size", "n_inner", "ffn_dim", "d_ff", default=4 * width),
        vocabulary=_first(told, "vocab_size", default=1),
        architecture=str(config.get("model_type", "")),
        context=_first(told, "max_position_embeddings", "n_positions", "n_ctx", default=0),
    )


def facts_of_gguf(header: Mapping[str, Any], weights_bytes: int) -> ModelFacts:
    """The facts of a GGUF file, by its header. Raises ValueError as `facts_of_config`."""
    kind = header.get("general.architecture")
    told = {
        name.removeprefix(f"{kind}."): value
        for name, value in header.items()
        if name.startswith(f"{kind}.")
    }
    heads, width = _first(told, "attention.head_count"), _first(told, "embedding_length")
    return ModelFacts(
        weights_bytes=weights_bytes,
        weight_bytes=0,
        layers=_first(told, "block_count"),
        heads=heads,
        cached_heads=_first(told, "attention.head_count_kv", default=heads),
        head_width=_first(told, "attention.key_length", default=width // heads),
        width=width,
        inner=_first(told, "feed_forward_length", default=4 * width),
        vocabulary=_first({**header, **told}, "vocab_size", TOKENS_LENGTH, default=1),
        architecture=str(kind),
        context=_first(told, "context_length", default=0),
    )


def _first(told: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    for name in names:
        value = told.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40:
            return value
    if default is None:
        raise ValueError(f"the model does not tell its {names[0]}")
    return default
