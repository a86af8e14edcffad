"""How pydantic validates the dataclasses of `core` that users send."""

from typing import Any, Final

FORBID: Final[dict[str, Any]] = {"extra": "forbid"}
"""Value of `__pydantic_config__` in a dataclass that refuses unknown keys."""
