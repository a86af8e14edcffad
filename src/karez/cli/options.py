"""Parse command-line options: as a dataclass, as NAME=VALUE pairs, given or default."""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from inspect import Parameter, signature
from typing import Any, Concatenate, ParamSpec, TypeVar

import typer

D = TypeVar("D")
P = ParamSpec("P")


def takes(kind: type[D]) -> Callable[[Callable[Concatenate[D, P], None]], Callable[..., None]]:
    """Give a Typer command one option for each field of a dataclass.

    Each field is annotated as a Typer option. The command's first parameter is the dataclass.
    """

    def wrap(command: Callable[Concatenate[D, P], None]) -> Callable[..., None]:
        members: tuple[Field[Any], ...] = fields(kind)  # type: ignore[arg-type]  # kind is a dataclass
        function: Callable[..., None] = command

        def run(**values: Any) -> None:
            chosen = {member.name: values.pop(member.name) for member in members}
            function(kind(**chosen), **values)

        _set_signature(run, command, members)
        return run

    return wrap


def _set_signature(run: Any, command: Callable[..., None], members: Sequence[Field[Any]]) -> None:
    """Show the fields and the command's own parameters as the parameters of `run`."""
    own = signature(command)
    options = [
        Parameter(
            member.name,
            Parameter.KEYWORD_ONLY,
            annotation=member.type,
            default=Parameter.empty if member.default is MISSING else member.default,
        )
        for member in members
    ]
    rest = [
        parameter.replace(kind=Parameter.KEYWORD_ONLY)
        for parameter in list(own.parameters.values())[1:]
    ]
    shown = [*options, *rest]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = own.replace(parameters=shown)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}


def given(ctx: typer.Context) -> frozenset[str]:
    """Names of the parameters that the command line or the environment sets."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return frozenset(
        name for name, source in sources.items() if source is not None and source.name != "DEFAULT"
    )


def pairs(texts: list[str] | None) -> dict[str, str]:
    """Parse NAME=VALUE options. Raises ValueError."""
    parsed = {}
    for text in texts or ():
        key, sep, value = text.partition("=")
        if not sep or not key:
            raise ValueError(f"{text!r} should read NAME=VALUE")
        parsed[key] = value
    return parsed
