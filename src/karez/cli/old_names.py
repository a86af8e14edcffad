"""Words of karez 0.1 on the command line: accepted for one release."""

from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from typing import ParamSpec, TypeVar

import typer

from karez.cli.terminal import say

P = ParamSpec("P")
T = TypeVar("T")
Word = TypeVar("Word", bound=StrEnum)
NEW_COMMANDS = {
    "pool mark": "pool override",
    "pool defrag": "pool defragment",
    "chaos cause": "chaos inject",
    "simulate share": "simulate colocate",
    "simulate journal": "simulate verify-log",
}
"""Old command -> new command. The old ones are hidden, and go with karez 0.3."""


def by_old_name(command: Callable[P, T], old: str) -> Callable[P, T]:
    """Wrap a command for its old name: the same options, and a line that names the new."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        line = f"`karez {old}` is `karez {NEW_COMMANDS[old]}` now; karez 0.3 has only that."
        say(line, err=True)
        return command(*args, **kwargs)

    return run


def word_of(kind: type[Word]) -> Callable[[str], Word]:
    """Make a parser of an option that takes the words of an enum, those of karez 0.1 too."""

    def parse(text: str) -> Word:
        try:
            return kind(text)
        except ValueError as error:
            known = ", ".join(repr(member.value) for member in kind)
            raise typer.BadParameter(f"{text!r} is not one of {known}.") from error

    return parse


def words_of(kind: type[StrEnum]) -> str:
    """The placeholder of such an option in the help."""
    return "|".join(member.value for member in kind)
