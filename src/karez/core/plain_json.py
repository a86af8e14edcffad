"""JSON that every part of a cloud can store and read again. Pure.

Python's reader takes NaN, integers of any size and NUL characters; SQL and other readers do not.
"""

import json
import math
from typing import Any

from karez.core.codec import MAX_INTEGER

MAX_DEPTH = 32
"""Deepest nesting: the deepest request has 6."""


def problem_with_json(text: bytes) -> str:
    """Why a JSON text is refused; empty if it can be kept, or is no JSON at all."""
    try:
        value = json.loads(text)
    except RecursionError:
        return f"it is nested more than {MAX_DEPTH} deep"
    except ValueError:  # whoever reads it next says where it breaks off
        return ""
    return _problem_with(value)


def _problem_with(value: Any) -> str:
    left = [(value, 1)]
    while left:
        item, depth = left.pop()
        if depth > MAX_DEPTH:
            return f"it is nested more than {MAX_DEPTH} deep"
        if isinstance(item, dict):
            left += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list):
            left += [(part, depth + 1) for part in item]
        elif problem := _problem_with_scalar(item):
            return problem
    return ""


def _problem_with_scalar(item: Any) -> str:
    if isinstance(item, float) and not math.isfinite(item):
        return "a number in it is not finite"
    if isinstance(item, int) and abs(item) > MAX_INTEGER:
        return f"an integer in it is beyond {MAX_INTEGER}"
    if isinstance(item, str) and "\0" in item:
        return "a text in it has a NUL character"
    if (
        isinstance(item, str)
        and not item.isascii()
        and any("\ud800" <= c <= "\udfff" for c in item)
    ):
        return "a text in it has half of a character (a lone surrogate)"
    return ""
