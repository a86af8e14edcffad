"""Operators with numbers, by type and shape: `python -m tests.migration.arithmetic DEVICE`."""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch

TYPES = (torch.int64, torch.int32, torch.uint8, torch.float32, torch.float16, torch.bool)
CASES: dict[str, Callable[[Any], Any]] = {
    "remainder": lambda a: a % 2,
    "remainder of a float": lambda a: a % 2.5,
    "fmod": lambda a: torch.fmod(a, 2),
    "and": lambda a: a & 1,
    "or": lambda a: a | 1,
    "xor": lambda a: a ^ 1,
    "left": lambda a: a << 1,
    "right": lambda a: a >> 1,
    "power": lambda a: a**2,
    "base": lambda a: 2**a,
    "equal": lambda a: a == 1,
    "less": lambda a: a < 2.5,
    "floor": lambda a: a // 2,
    "clamp": lambda a: a.clamp(1, 3),
    "where": lambda a: torch.where(a > 2, a, 0),
    "where float": lambda a: torch.where(a > 2, 1.0, a),
    "reversed": lambda a: 3 - a,
    "lerp": lambda a: torch.lerp(a.float(), a.float() * 2, 0.3),
    "xlogy": lambda a: torch.xlogy(a.float(), 2),
    "sign": lambda a: torch.copysign(a.float(), -1),
    "plus": lambda a: a + 1.5,
    "times": lambda a: a * True,
    "in": lambda a: torch.isin(a, 2),
    "fill": lambda a: a.clone().fill_(2),
    "mask": lambda a: a.clone().masked_fill(a > 2, 1),
    "greater": lambda a: a <= 2,
    "divided": lambda a: torch.div(a, 2, rounding_mode="floor"),
}


def results(device: str) -> list[tuple[str, str, int, Any]]:
    """(type, case, dimensions, what comes out) of all of them."""
    found: list[tuple[str, str, int, Any]] = []
    for dtype in TYPES:
        row = torch.arange(6).to(dtype).to(device)
        for value in (row, row[3].clone()):
            for name, case in CASES.items():
                try:
                    made = case(value)
                    said: Any = [str(made.dtype), str(made.cpu().tolist())]
                except (RuntimeError, TypeError) as error:
                    said = type(error).__name__
                found.append((str(dtype), name, value.dim(), said))
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(results(sys.argv[1])) + "\n")
