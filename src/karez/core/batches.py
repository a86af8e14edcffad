"""Batches: files of requests, as OpenAI's Batch API has them. Pure."""

import json
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any, Final

from karez.core.plain_json import problem_with_json

BATCH_CALLS: Final = "batch-calls"
"""The recipe that answers a batch."""
ENDPOINTS: Final = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/rerank",
    "/v1/classify",
)
MAX_REQUESTS: Final = 50_000
MAX_BATCH_BYTES: Final = 200 << 20
MAX_LINE_BYTES: Final = 16 << 20
MAX_ID_CHARACTERS: Final = 512
MAX_METADATA, MAX_METADATA_CHARACTERS = 16, 512
MAX_PROBLEMS: Final = 10
"""Lines that are named where a file is refused."""
HOUR_S, MAX_WINDOW_S = 3600.0, 7 * 86_400.0
_WINDOW: Final = re.compile(r"([1-9]\d{0,3})([hd])")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """One request of a batch."""

    custom_id: str
    url: str
    body: dict[str, Any]


def window_s(text: str) -> float:
    """Seconds of a completion window, such as `24h`. Raises ValueError."""
    found = _WINDOW.fullmatch(text)
    seconds = 0.0 if found is None else int(found[1]) * (HOUR_S if found[2] == "h" else 24 * HOUR_S)
    if not 0 < seconds <= MAX_WINDOW_S:
        raise ValueError(f"completion_window is 1h to 168h or 1d to 7d, such as 24h, not {text!r}")
    return seconds


def parse_line(line: bytes) -> BatchLine:
    """Parse a line of a batch. Raises ValueError."""
    if problem := problem_with_json(line):
        raise ValueError(f"it cannot be sent: {problem}")
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError("it is no JSON") from error
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    custom_id, url, body = found.get("custom_id"), found.get("url"), found.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_ID_CHARACTERS:
        raise ValueError(f"custom_id is a text of 1 to {MAX_ID_CHARACTERS} characters")
    if found.get("method", "POST") != "POST":
        raise ValueError("method is POST")
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise ValueError("body is an object that names a model")
    if body.get("stream"):
        raise ValueError("body has stream: a batch has whole answers")
    return BatchLine(custom_id=custom_id, url=str(url), body=body)


def check_lines(lines: Iterable[bytes], endpoint: str) -> int:
    """Check the lines of a batch, empty ones aside; returns how many requests they are.

    Raises:
        ValueError: Some are none, or are there twice; it says which.
    """
    seen: set[str] = set()
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                seen.add(_check_line(line, endpoint, seen))
            except ValueError as error:
                problems.append(f"line {number}: {error}")
        if len(problems) >= MAX_PROBLEMS:
            break
        if len(seen) > MAX_REQUESTS:
            raise ValueError(f"a batch has up to {MAX_REQUESTS:,} requests")
    if problems:
        raise ValueError("; ".join(problems))
    if not seen:
        raise ValueError("the file has no requests")
    return len(seen)


def _check_line(line: bytes, endpoint: str, seen: Container[str]) -> str:
    """The id of a line that fits in behind others. Raises ValueError."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"it has more than {MAX_LINE_BYTES >> 20} MiB")
    parsed = parse_line(line)
    if parsed.url != endpoint:
        raise ValueError(f"url is {parsed.url!r}, and the batch is for {endpoint}")
    if parsed.custom_id in seen:
        raise ValueError(f"custom_id {parsed.custom_id!r} is there twice")
    return parsed.custom_id


def check_metadata(metadata: Any) -> str:
    """JSON of what whoever asks notes of a batch. Raises ValueError."""
    if metadata is None:
        return "{}"
    texts = list(metadata.items()) if isinstance(metadata, dict) else [("", None)]
    if len(texts) > MAX_METADATA or not all(
        isinstance(value, str) and len(name) + len(value) <= MAX_METADATA_CHARACTERS
        for name, value in texts
    ):
        raise ValueError(
            f"metadata is an object of up to {MAX_METADATA} texts of together with their names "
            f"{MAX_METADATA_CHARACTERS} characters each"
        )
    return json.dumps(metadata)
