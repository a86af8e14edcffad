"""Headers of safetensors that no reader should take, and those that are right."""

import json
import struct

import pytest

from karez.core.safetensors_header import HEAD_BYTES, header_length, weights_bytes


def header(**places: object) -> bytes:
    return json.dumps({name: {"data_offsets": place} for name, place in places.items()}).encode()


def test_bytes_of_all_weights_are_counted_in_any_order() -> None:
    assert weights_bytes(header(b=[4, 12], a=[0, 4]), 12) == 12
    assert weights_bytes(b'{"__metadata__": {"format": "pt"}}', 0) == 0


@pytest.mark.parametrize(
    ("text", "body", "said"),
    [
        (header(a=[0, 4], b=[2, 6]), 6, "'b' do not begin"),
        (header(a=[0, 4], b=[6, 8]), 8, "'b' do not begin"),
        (header(a=[1, 4]), 4, "'a' do not begin"),
        (header(a=[0, 4]), 3, "1 bytes of its weights are missing"),
        (header(a=[0, 4]), 9, "5 bytes of it belong to no weight"),
        (header(a=[False, True]), 1, "no place for 'a'"),
        (header(a=[4, 0]), 4, "no place for 'a'"),
        (header(a="0-4"), 4, "no place for 'a'"),
        (b'{"a": 3}', 4, "no place for 'a'"),
        (b'{"a": {"data_offsets": [0, 4]}, "a": {"data_offsets": [0, 2]}}', 4, "twice"),
        (b"[1]", 0, "no JSON object"),
        (b"{", 0, "no JSON"),
        (b"[" * 100_000, 0, "no JSON"),
    ],
)
def test_what_no_reader_should_take_is_refused(text: bytes, body: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        weights_bytes(text, body)


def test_a_header_is_within_its_file() -> None:
    assert header_length(struct.pack("<Q", 5), HEAD_BYTES + 5) == 5
    for head, size in ((struct.pack("<Q", 6), HEAD_BYTES + 5), (b"short", 5)):
        with pytest.raises(ValueError, match=r"longer than the file|too short"):
            header_length(head, size)
