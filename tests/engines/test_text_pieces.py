"""Text from tokens, in whatever pieces they come."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.engines.text_pieces import TextPieces


def decode(tokens: Sequence[int]) -> str:
    """Tokens that are bytes, as the smallest of a real vocabulary."""
    return bytes(tokens).decode(errors="replace")


def told(pieces: TextPieces, tokens: bytes, cuts: list[int]) -> str:
    ends = sorted({min(cut, len(tokens)) for cut in cuts} | {len(tokens)})
    begins = [0, *ends[:-1]]
    texts = [pieces.feed(list(tokens[b:e])) for b, e in zip(begins, ends, strict=True)]
    return "".join(texts) + pieces.finish()


@given(st.text(max_size=40), st.lists(st.integers(0, 120), max_size=12))
def test_any_cut_of_a_text_gives_the_text(text: str, cuts: list[int]) -> None:
    assert told(TextPieces(decode=decode), text.encode(), cuts) == text


@given(
    st.text("abx", max_size=30),
    st.lists(st.text("abx", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(0, 30), max_size=12),
)
def test_a_text_ends_before_its_first_stop(text: str, stops: list[str], cuts: list[int]) -> None:
    pieces = TextPieces(decode=decode, stops=tuple(stops))
    found = told(pieces, text.encode(), cuts)
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    assert pieces.is_stopped == bool(ends)
    if ends:  # of two that overlap, the one that is complete first may be what ends it
        assert text.startswith(found)
        assert not any(stop in found for stop in stops)
    else:
        assert found == text


def test_what_may_begin_a_stop_is_held_back() -> None:
    pieces = TextPieces(decode=decode, stops=("END",))
    assert pieces.feed(list(b"one E")) == "one "
    assert pieces.feed(list(b"N")) == ""
    assert pieces.feed(list(b"V")) == "ENV"
    assert pieces.feed(list(b" END more")) == " "
    assert pieces.is_stopped
    assert pieces.feed(list(b"more")) == pieces.finish() == ""


def test_bytes_that_are_no_character_are_shown_in_the_end() -> None:
    pieces = TextPieces(decode=decode)
    assert pieces.feed([0xE4]) == ""
    assert pieces.finish() == "\ufffd"


@pytest.mark.parametrize("first", ["a", " a"])
def test_a_decoder_that_drops_the_first_space_drops_no_other(first: str) -> None:
    words = [first, " b", " c"]

    def sentencepiece(tokens: Sequence[int]) -> str:
        return "".join(words[token] for token in tokens).removeprefix(" ")

    pieces = TextPieces(decode=sentencepiece)
    assert "".join(pieces.feed([token]) for token in range(3)) + pieces.finish() == "a b c"
