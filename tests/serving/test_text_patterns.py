"""Patterns of personal data and secrets: what they find, and that pieces change nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.guardrails import TextPattern
from karez.serving.text_patterns import Finder, TextInPieces

ALL = Finder(tuple(TextPattern), ("Project Falcon", "猎鹰"))
FOUND = {
    "mail bob.b+c@ex-ample.co.uk.": "mail [email].",
    "call +49 (30) 1234 5678 or 13912345678!": "call [phone] or [phone]!",
    "card 4111 1111 1111 1111, or 4111-1111-1111-1111": "card [card], or [card]",
    "4111 1111 1111 1111 123, 4111111111111111 12/27": "[card] 123, [card] 12/27",
    "BE68 5390 0754 7034 EUR 500": "[iban] EUR 500",
    '"x\\n4111111111111111", "y\\nbob@example.com"': '"x\\n[card]", "y\\n[email]"',
    '{"key": "-----BEGIN PRIVATE KEY-----\\nMIIEvQ+/=\\nab\\n-----END PRIVATE KEY-----\\n"}': (
        '{"key": "[credential]\\n"}'
    ),
    "pay DE89 3704 0044 0532 0130 00 now": "pay [iban] now",
    "id 11010519491231002X": "id [cn-id]",
    "ssn 078-05-1120.": "ssn [ssn].",
    "use sk-abcdefghijklmnopqrstuvwx please": "use [credential] please",
    "AKIAIOSFODNN7EXAMPLE": "[credential]",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE+/=\nabc\n-----END RSA PRIVATE KEY-----\nbye": (
        "[credential]\nbye"
    ),
    "about PROJECT falcon, 猎鹰计划": "about [removed], [removed]计划",
}
"""A text -> the same without what is found."""
NOT_FOUND = (
    "4111 1111 1111 1112",  # no card by its check digit
    "DE88 1704 0044 0532 0130 01",
    "110105194912310021",
    "the number 1234567890123456789012 is long",
    "version 1.2.3, at 12:30 on 2026-11-30",
    "a@b",
    "000-12-3456",
    "sk-short",
    "task-abcdefghijklmnopqrstuvwxyz",
)


@pytest.mark.parametrize("text", FOUND)
def test_what_is_known_is_found(text: str) -> None:
    assert TextInPieces(ALL).feed(text, masks=True, is_last=True) == FOUND[text]


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert TextInPieces(ALL).feed(text, masks=True, is_last=True) == text


PIECES = st.lists(
    st.one_of(st.sampled_from([*FOUND, *NOT_FOUND]), st.text("a1 -@.+猎", max_size=12)),
    max_size=6,
).map(" ".join)


@given(text=PIECES, cuts=st.lists(st.integers(1, 9), min_size=1, max_size=40))
def test_a_text_in_pieces_is_masked_as_a_whole_one(text: str, cuts: list[int]) -> None:
    whole = TextInPieces(ALL)
    masked = whole.feed(text, masks=True, is_last=True)
    pieces, said, at = TextInPieces(ALL), "", 0
    for number in range(len(text)):
        if at >= len(text):
            break
        step = cuts[number % len(cuts)]
        said += pieces.feed(text[at : at + step], masks=True)
        assert masked.startswith(said)
        at += step
    said += pieces.feed("", masks=True, is_last=True)
    assert said == masked
    assert pieces.matches == whole.matches


def test_plain_text_is_hardly_held_back() -> None:
    text, pieces = "Once upon a time there was a river in 1990, and so on. " * 20, TextInPieces(ALL)
    said = ""
    for at in range(0, len(text), 4):
        said += pieces.feed(text[at : at + 4], masks=True)
        assert at + 4 - len(said) <= 24
