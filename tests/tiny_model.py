"""A language model of a few kilobytes that a real engine loads: random weights, bytes as tokens."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

WIDTH, INNER, HEADS, CONTEXT = 32, 64, 2, 256


def write_tiny_model(path: Path, context: int = CONTEXT) -> Path:
    """A one-layer Llama in a GGUF file, for contexts of so many tokens."""
    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([*kinds, *[gguf.TokenType.BYTE] * 256])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    write_layer(writer, len(tokens), WIDTH, INNER, np.float32)
    return path


def write_layer(
    writer: gguf.GGUFWriter, tokens: int, width: int, inner: int, dtype: type[np.floating[Any]]
) -> None:
    """Write the weights of a one-layer Llama, at random but always the same, and end the file."""
    chance = np.random.default_rng(0)
    shapes = {
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
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", chance.normal(0, 0.1, shape).astype(dtype))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
