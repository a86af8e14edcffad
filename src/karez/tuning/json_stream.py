"""Reads a JSON list object by object."""

import json
from collections.abc import Iterator
from typing import Any, TextIO

CHUNK = 1 << 20
"""Characters read at a time."""


def events(file: TextIO) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list, one at a time: a trace may be larger than memory.

    Raises:
        ValueError: The file does not hold a list of objects.
    """
    decoder = json.JSONDecoder()
    text, at = file.read(CHUNK).lstrip(), 1
    if not text.startswith("["):
        raise ValueError("the file should hold a list of events")
    while True:
        while at < len(text) and text[at] in " ,\r\n\t":
            at += 1
        if at < len(text) and text[at] == "]":
            return
        try:
            event, at = decoder.raw_decode(text, at)
        except ValueError:
            more = file.read(CHUNK)
            if not more:
                raise
            text, at = text[at:] + more, 0
            continue
        if isinstance(event, dict):
            yield event
        if at > CHUNK:
            text, at = text[at:], 0
