"""Units: amounts as people write them, and as the integers and seconds the code uses."""

import re
from decimal import Decimal
from typing import Final

_BYTES: Final = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "K": 2**10,
    "M": 2**20,
    "G": 2**30,
    "T": 2**40,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SECONDS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")

MILLI: Final = 1000
"""Thousandths of a device: the integer unit in which devices are granted."""


def parse_bytes(text: str | int) -> int:
    """Read `32GiB`, `500 MB`, `300M` (binary, as in Slurm and Docker) or plain bytes.

    Raises:
        ValueError: Not a number with a unit of bytes.
    """
    if isinstance(text, int):
        return text
    match = _NUMBER.fullmatch(text)
    if not match or match[2].upper() not in _BYTES:
        raise ValueError(f"{text!r} is not an amount of memory; write it like 512MiB or 32GiB")
    return int(Decimal(match[1]) * _BYTES[match[2].upper()])


def parse_seconds(text: str | float) -> float:
    """Read `90s`, `1.5h`, `1h30m`, `2d` or plain seconds.

    Raises:
        ValueError: Not a number with a unit of time.
    """
    if not isinstance(text, str):
        return float(text)
    parts = _NUMBER.findall(text)
    units = [unit for _, unit in parts]
    is_known = bool(parts) and not _NUMBER.sub("", text) and set(units) <= set(_SECONDS)
    sizes = [_SECONDS[unit] for unit in units] if is_known else []
    is_falling = sizes == sorted(set(sizes), reverse=True) and (len(units) == 1 or "" not in units)
    if not is_known or not is_falling:
        raise ValueError(f"{text!r} is not a duration; write it like 90s, 1h30m or 12h")
    return sum(float(number) * size for (number, _), size in zip(parts, sizes, strict=True))


def show_bytes(amount: int) -> str:
    """Show bytes for people, in binary units."""
    value, units = float(amount), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def show_seconds(seconds: float) -> str:
    """Show a duration for people: `340 ms`, `12.5 s`, `3m 20s`, `2h 05m`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m"


def show_devices(milli: int) -> str:
    """Show thousandths of a device as a count: 2000 -> `2`, 500 -> `0.5`."""
    return f"{milli / MILLI:g}"
