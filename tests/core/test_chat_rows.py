"""Chat data as people have it: read where it can be, else named by line, field and mend."""

import io
import json
from typing import Any

import pytest

from karez.core.chat_rows import read_chat_rows
from karez.core.errors import BadRow


def row(question: object = "hi", answer: object = "yo", **more: object) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer, **more},
        ]
    }


def lines(*rows: object, end: str = "\n") -> bytes:
    return "".join(json.dumps(one, ensure_ascii=False) + end for one in rows).encode()


def read(data: bytes) -> list[Any]:
    return list(read_chat_rows("train.jsonl", io.BytesIO(data)))


@pytest.mark.parametrize(
    "data",
    [
        lines(row(), row()),
        b"\xef\xbb\xbf" + lines(row(), row()),
        lines(row(), row(), end="\r\n"),
        b"\n" + lines(row()) + b"  \n\r\n" + lines(row()) + b"\n\n",
        lines(row(), row()).rstrip(b"\n"),
        lines(row([{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]), row()),
    ],
    ids=["plain", "bom", "crlf", "blank", "no-end", "parts"],
)
def test_what_can_be_read_is(data: bytes) -> None:
    assert read(data) == [row()["messages"]] * 2


def test_separators_of_unicode_belong_to_the_text() -> None:
    odd = row("a\u2028b\u2029", "c\u0085d\x0b")
    assert read(lines(odd)) == [odd["messages"]]


@pytest.mark.parametrize(
    ("data", "words", "mend"),
    [
        (lines(row("café")).decode().encode("latin-1"), "line 1: byte .* 0xe9", "iconv -f LATIN1"),
        (lines(row()).decode().encode("utf-16"), "the file is UTF-16", "iconv -f UTF-16"),
        (b"", "train.jsonl: there are no rows", "one JSON object per line"),
        (b"\n\n", "there are no rows", "one JSON object per line"),
        (lines(row()) + b"{", "line 2: the line is no JSON", "Correct it"),
        (lines({"instruction": "x"}), "messages: it is missing; there is: instruction", "messages"),
        (lines([1]), "messages: it is missing; there is: list", "messages"),
        (lines({"messages": []}), "messages: it is empty", "messages"),
        (lines({"messages": "hi"}), "messages: it is empty or no list", "messages"),
        (lines({"messages": ["hi"]}), r"messages\[0\]: it is no object", "role and content"),
        (lines(row("hi", None)), r"messages\[1\].content: it is null", "drop the row"),
        (lines(row(answer=" ")), r"messages\[1\].content: the answer is empty", "drop the row"),
        (lines(row(tool_calls=[{"id": "1"}])), r"messages\[1\].tool_calls: calls", "as text"),
        (lines({"messages": row()["messages"][:1]}), r"messages\[0\].role: the last", "End each"),
        (
            lines({"messages": [{"role": "tool", "content": "x"}, row()["messages"][1]]}),
            r"messages\[0\].role: it is 'tool'",
            "system, user, assistant",
        ),
        (
            lines(row([{"type": "image_url", "image_url": {}}])),
            r"messages\[0\].content\[0\]: a part of type 'image_url'",
            "parts of type text",
        ),
    ],
)
def test_what_cannot_is_named_with_line_field_and_mend(data: bytes, words: str, mend: str) -> None:
    with pytest.raises(BadRow, match=words) as error:
        read(data)
    assert mend in error.value.hint()
