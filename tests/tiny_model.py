"""A language model of a few kilobytes that a real engine loads: random weights, bytes as tokens."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

WIDTH, INNER, HEADS, CONTEXT = 32, 64, 2, 256
TOKENS = 3 + 256


def write_tiny_model(path: Path, context: int = CONTEXT) -> Path:
    """A one-layer Llama in a GGUF file, for contexts of so many tokens."""
    writer = _writer(path, context, WIDTH, INNER)
    write_layer(writer, TOKENS, WIDTH, INNER, np.float32)
    return path


def _writer(path: Path, context: int, width: int, inner: int) -> gguf.GGUFWriter:
    """The file with all but its weights."""
    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // HEADS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([*kinds, *[gguf.TokenType.BYTE] * 256])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    return writer


def write_layer(
    writer: gguf.GGUFWriter, tokens: int, width: int, inner: int, dtype: type[np.floating[Any]]
) -> None:
    """Write the weights of a one-layer Llama, at random but always the same, and end the file."""
    chance = np.random.default_rng(0)
    shapes = _shapes(tokens, width, inner).items()
    _write(writer, {name: chance.normal(0, 0.1, shape).astype(dtype) for name, shape in shapes})


def _shapes(tokens: int, width: int, inner: int) -> dict[str, tuple[int, int]]:
    return {
        "token_embd": (tokens, width),
        "output": (tokens, width),
        "blk.0.attn_q": (width, width),
        "blk.0.attn_k": (width, width),
        "blk.0.attn_v": (width, width),
        "blk.0.attn_output": (width, width),
        "blk.0.ffn_gate": (inner, width),
        "blk.0.ffn_up": (inner, width),
        "blk.0.ffn_down": (width, inner),
    }


def _write(writer: gguf.GGUFWriter, weights: dict[str, Any]) -> None:
    """Write the weights, and norms that change nothing, and end the file."""
    width = weights["blk.0.attn_q"].shape[0]
    for name, weight in weights.items():
        writer.add_tensor(f"{name}.weight", weight)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


WALKS = b"0123456789QRSTUVWXYZ!#$%&()*+-./", b"abcdefghijklmnopqrstuvwxyz:;=?@_"
"""The characters of a decided model's answers to prompts with B, D, F ... and with A, C, E ..."""
CONSTANT, MARK, SIGN, CHOICE, DECIDED_WIDTH = 128, 129, 130, 131, 160
"""Places of a decided model's vector; those before are the ASCII character itself."""


def write_decided_model(path: Path, context: int = CONTEXT) -> Path:
    """A model whose next token is never in doubt.

    Where weights are random, two tokens are at times so near that rounding decides between them,
    and what is rounded differs where a prompt is computed at once and not token by token. Here
    one token leads all others by far. It follows from the one before, in walks that come round
    after 32 characters, and by attention from which of the letters A to P the prompt has.
    """
    inner = 32
    writer = _writer(path, context, DECIDED_WIDTH, inner)
    shapes = _shapes(TOKENS, DECIDED_WIDTH, inner)
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    embeddings, output = weights["token_embd"], weights["output"]
    embeddings[:, CONSTANT] = 1
    for byte in range(128):
        embeddings[_token(byte), byte] = 1
    for letter in range(ord("A"), ord("P") + 1):
        embeddings[_token(letter), [MARK, SIGN]] = 1, (-1) ** letter
    for walk, sign in zip(WALKS, (1, -1), strict=True):
        for byte in range(128):
            place = walk.find(byte) + 1 if byte in walk else byte
            output[_token(walk[place % len(walk)]), byte] = 4
        output[[_token(byte) for byte in walk], CHOICE] = 2 * sign
    slowest = DECIDED_WIDTH // HEADS - 2  # of the pairs that turn with the position
    weights["blk.0.attn_q"][slowest, CONSTANT] = 3
    weights["blk.0.attn_k"][slowest, MARK] = 3
    weights["blk.0.attn_v"][0, SIGN] = 1
    weights["blk.0.attn_output"][CHOICE, 0] = 0.16
    _write(writer, weights)
    return path


def _token(byte: int) -> int:
    return 3 + byte
