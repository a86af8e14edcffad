"""What files of models tell of their size and shape."""

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.gguf_header import read_gguf_facts
from karez.core.model_facts import facts_of_config, facts_of_gguf
from tests.tiny_model import CONTEXT, HEADS, INNER, WIDTH, write_tiny_model

LLAMA = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "dtype": "bfloat16",
}


def test_a_gguf_file_tells_its_shape(tmp_path: Path) -> None:
    file = write_tiny_model(tmp_path / "m.gguf")
    with file.open("rb") as opened:
        facts = facts_of_gguf(read_gguf_facts(opened), file.stat().st_size)
    assert (facts.layers, facts.heads, facts.cached_heads) == (1, HEADS, HEADS)
    assert (facts.width, facts.inner, facts.context) == (WIDTH, INNER, CONTEXT)
    assert facts.vocabulary == 259
    assert facts.cached_values == 2 * WIDTH


def test_a_header_that_ends_early_is_refused(tmp_path: Path) -> None:
    whole = write_tiny_model(tmp_path / "m.gguf").read_bytes()
    header = next(
        length for length in range(len(whole)) if _reads(whole[:length])
    )  # the tensors are not needed
    assert header < len(whole) / 2
    assert not any(_reads(whole[:length]) for length in range(0, header, 97))


def _reads(data: bytes) -> bool:
    try:
        return read_gguf_facts(io.BytesIO(data))["general.architecture"] == "llama"
    except ValueError:
        return False


def _header(*values: bytes) -> io.BytesIO:
    return io.BytesIO(b"GGUF" + struct.pack("<IQQ", 3, 0, len(values)) + b"".join(values))


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "value",
    [
        _text(b"k") + struct.pack("<IIQ", 9, 8, 2**40),  # an array of texts without an end
        _text(b"k") + struct.pack("<IIQ", 9, 0, 2**60),  # one of bytes
        _text(b"k") + struct.pack("<IIQ", 9, 9, 1),  # one of arrays
        _text(b"k") + struct.pack("<IQ", 8, 2**50),  # a text
        struct.pack("<Q", 2**62),  # a name
        _text(b"k") + struct.pack("<I", 77),
    ],
)
def test_a_header_takes_neither_time_nor_memory_without_end(value: bytes) -> None:
    with pytest.raises(ValueError, match="header"):
        read_gguf_facts(_header(value))


def test_the_length_of_an_array_is_not_its_value() -> None:
    array = _text(b"llama.attention.head_count_kv") + struct.pack("<IIQ3I", 9, 4, 3, 4, 4, 4)
    facts = read_gguf_facts(_header(array))
    assert facts == {"llama.attention.head_count_kv.length": 3}
    told = {
        "general.architecture": "llama",
        "llama.block_count": 36,
        "llama.embedding_length": 64,
        "llama.attention.head_count": 8,
    }
    assert facts_of_gguf({**facts, **told}, 1).cached_heads == 8


@given(st.binary(max_size=200))
def test_bytes_that_only_begin_as_gguf_are_refused(rest: bytes) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40)
    with pytest.raises(ValueError, match="cannot be read"):
        read_gguf_facts(io.BytesIO(head + rest))
    try:
        read_gguf_facts(io.BytesIO(b"GGUF" + struct.pack("<IQQ", 3, 0, 3) + rest))
    except ValueError:
        return


def test_a_folder_tells_its_shape_by_its_config() -> None:
    facts = facts_of_config(LLAMA, 269_060_552)
    assert facts.weight_bytes == 2
    assert facts.head_width == 64
    assert facts.cached_values == 2 * 30 * 3 * 64
    gpt2 = {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_ctx": 1024, "vocab_size": 50257}
    assert facts_of_config(gpt2, 1).inner == 4 * 768
    assert facts_of_config({"text_config": LLAMA, "hidden_size": 1}, 1).width == 576


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "num_hidden_layers"),
        ({"num_hidden_layers": 2, "num_attention_heads": "many"}, "num_attention_heads"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({**LLAMA, "hidden_size": -1}, "hidden_size"),
    ],
)
def test_a_config_that_does_not_tell_is_refused(config: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=f"does not tell its {words}"):
        facts_of_config(config, 1)
