"""Frozen dataclasses to JSON and back, strictly: unknown keys and wrong types are refused."""

from collections.abc import Hashable, Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le
from pydantic import AllowInfNan, TypeAdapter, ValidationError

T = TypeVar("T")

MAX_INTEGER = 2**53 - 1
"""Largest integer that every reader of JSON keeps exact (RFC 8259, section 6)."""
Count = Annotated[int, Ge(0), Le(MAX_INTEGER)]
"""A rank, a size: an integer that is not negative, which reading checks."""
MAX_STEP = 2**31 - 1
Step = Annotated[int, Ge(0), Le(MAX_STEP)]
"""A count of steps or generations, which SQL keeps in 32 bits."""
Finite = Annotated[float, AllowInfNan(False)]
"""A loss, a duration: a number that reading checks to be finite."""


@cache
def _cached(kind: Hashable) -> TypeAdapter[Any]:
    adapter: Any = TypeAdapter
    made: TypeAdapter[Any] = adapter(kind)
    return made


def _adapter(kind: Any) -> TypeAdapter[Any]:
    return _cached(kind)


def prepare(kind: type[Any]) -> None:
    """Build what reads and writes a type: 20 ms that its first use takes otherwise."""
    _adapter(kind)


def to_json(value: object) -> Any:
    """Convert a value to dicts, lists and scalars."""
    return _adapter(type(value)).dump_python(value, mode="json")


def to_text(value: object) -> str:
    """Write a dataclass as JSON text."""
    return _adapter(type(value)).dump_json(value).decode()


def to_brief_text(value: object) -> str:
    """Write a dataclass as JSON text, without fields that have their default."""
    return _adapter(type(value)).dump_json(value, exclude_defaults=True).decode()


def from_json(kind: type[T], data: Any) -> T:
    """Read a typed value from parsed JSON.

    Raises:
        ValueError: The data does not describe a `kind`; the message names the field.
    """
    try:
        value: T = _adapter(kind).validate_python(data)
    except ValidationError as error:
        raise ValueError(explain(error)) from error
    return value


def from_text(kind: type[T], text: str | bytes) -> T:
    """Read a typed value from JSON text. Raises ValueError as `from_json`."""
    try:
        value: T = _adapter(kind).validate_json(text)
    except ValidationError as error:
        raise ValueError(explain(error)) from error
    return value


def rename_keys(value: Any, names: Mapping[str, str]) -> Any:
    """Rename keys of a parsed JSON object that an older release wrote; other values stay."""
    if not isinstance(value, dict):
        return value
    return {names.get(key, key): item for key, item in value.items()}


def explain(error: ValidationError) -> str:
    """Describe the first validation error, with the field it is about.

    Of the alternatives of a field, the one that a number that is not finite came closest to.
    """
    errors = error.errors(include_url=False)
    first = next((one for one in errors if one["type"] == "finite_number"), errors[0])
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
