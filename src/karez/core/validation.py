"""How pydantic validates the dataclasses of `core` that users send."""

from typing import Any, Final

FORBID: Final[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}
"""Value of `__pydantic_config__` in a dataclass that refuses unknown keys, and numbers that are not
finite: JSON has none, so they would not be read again."""
