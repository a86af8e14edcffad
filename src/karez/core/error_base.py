"""What all errors of karez have in common, and how they are rebuilt from what the API sends."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import partial
from typing import ClassVar


@dataclass(eq=False, kw_only=True)
class KarezError(Exception):
    """Shown by the API as problem+json, by the CLI as two lines; its fields are the facts.

    A class states its two sentences as templates, which are filled with its fields.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    exit_code: ClassVar[int] = 1
    """Exit code of a rank that ends with it."""
    message: ClassVar[str]
    advice: ClassVar[str]

    def what(self) -> str:
        """Say what happened: one sentence with the values in it."""
        return self.message.format_map(self.facts())

    def hint(self) -> str:
        """Say what to do next, as a command where there is one."""
        return self.advice.format_map(self.facts())

    def facts(self) -> dict[str, str | int]:
        """Return the values of all fields by name, as the API sends them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __str__(self) -> str:
        return f"{self.what()} {self.hint()}"

    def __reduce__(self) -> tuple[Callable[[], "KarezError"], tuple[()]]:
        return partial(type(self), **self.facts()), ()  # errors cross process borders


def every_error() -> tuple[type[KarezError], ...]:
    """List all error classes, for the documentation and its test."""
    return tuple(sorted(KarezError.__subclasses__(), key=lambda error: error.code))


def error_from(code: str, facts: Mapping[str, object]) -> KarezError | None:
    """Rebuild an error from its code and facts; None if this version cannot."""
    kind = next((error for error in every_error() if error.code == code), None)
    if kind is None:
        return None
    values: dict[str, object] = {}
    for field in fields(kind):
        if field.name in facts and type(facts[field.name]) is field.type:
            values[field.name] = facts[field.name]
        elif field.default is MISSING:
            return None
    rebuilt: KarezError = kind(**values)
    return rebuilt
