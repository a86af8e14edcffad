"""Lines of batches: which are requests, and what is said of those that are none."""

import json
from typing import Any

import pytest

from karez.core.batches import MAX_PROBLEMS, check_lines, check_metadata, parse_line, window_s

URL = "/v1/chat/completions"


def line(number: int = 0, **change: Any) -> bytes:
    row = {
        "custom_id": f"r{number}",
        "method": "POST",
        "url": URL,
        "body": {"model": "m", "messages": []},
    }
    return json.dumps({**row, **change}).encode() + b"\n"


def test_lines_are_counted_and_empty_ones_left_out() -> None:
    assert check_lines([line(1), b"\n", line(2), b"  \n"], URL) == 2
    assert parse_line(line(1)).custom_id == "r1"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"{", "line 2: it is no JSON"),
        (b"[" * 100_000, "line 2: it cannot be sent: it is nested"),
        (line(9, body={"model": "m", "a": float("nan")}), "line 2: it cannot be sent: a number"),
        (b'{"custom_id": "\\ud83d"}', "line 2: it cannot be sent: a text in it has half"),
        (b"3", "line 2: it is no JSON object"),
        (b"\xff", "line 2: it is no JSON"),
        (line(9, custom_id=3), "line 2: custom_id is a text"),
        (line(9, custom_id="x" * 513), "line 2: custom_id is a text"),
        (line(9, method="GET"), "line 2: method is POST"),
        (line(9, body={"messages": []}), "line 2: body is an object that names a model"),
        (line(9, body={"model": "m", "stream": True}), "line 2: body has stream"),
        (line(9, url="/v1/embeddings"), "line 2: url is '/v1/embeddings', and the batch is for"),
        (line(1), "line 2: custom_id 'r1' is there twice"),
    ],
)
def test_a_line_that_is_no_request_is_named(bad: bytes, said: str) -> None:
    with pytest.raises(ValueError, match="line") as caught:
        check_lines([line(1), bad, line(3)], URL)
    assert said in str(caught.value)


def test_not_all_problems_of_a_hopeless_file_are_told() -> None:
    with pytest.raises(ValueError, match="line 1: ") as caught:
        check_lines([b"x"] * 1000, URL)
    assert str(caught.value).count("line ") == MAX_PROBLEMS
    with pytest.raises(ValueError, match="no requests"):
        check_lines([b"\n"], URL)


@pytest.mark.parametrize(
    ("text", "seconds"), [("24h", 86_400.0), ("1h", 3600.0), ("7d", 604_800.0)]
)
def test_windows(text: str, seconds: float) -> None:
    assert window_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0h", "8d", "24", "1m", "-1h", "24 h", "99999h"])
def test_other_windows_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as 24h"):
        window_s(text)


@pytest.mark.parametrize("found", [[], {"a": 1}, {"a": "x" * 600}, {str(n): "" for n in range(17)}])
def test_metadata_are_a_few_texts(found: Any) -> None:
    with pytest.raises(ValueError, match="metadata is"):
        check_metadata(found)


def test_metadata_come_back() -> None:
    assert json.loads(check_metadata({"a": "b"})) == {"a": "b"}
    assert check_metadata(None) == "{}"
