"""How commands take their options: grouped in a dataclass, told apart from defaults, in pairs."""

from collections.abc import Callable
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
        known: tuple[Field[Any], ...] = fields(kind)  # type: ignore[arg-type]  # kind is a dataclass
        shown = signature(command)
        options = [
            Parameter(
                field.name,
                Parameter.KEYWORD_ONLY,
                annotation=field.type,
                default=Parameter.empty if field.default is MISSING else field.default,
            )
            for field in known
        ]
        rest = [
            one.replace(kind=Parameter.KEYWORD_ONLY) for one in list(shown.parameters.values())[1:]
        ]

        def run(**values: Any) -> None:
            chosen = {field.name: values.pop(field.name) for field in known}
            whole: Callable[..., None] = command
            whole(kind(**chosen), **values)

        face: Any = run
        face.__name__, face.__doc__ = command.__name__, command.__doc__
        face.__signature__ = shown.replace(parameters=[*options, *rest])
        face.__annotations__ = {one.name: one.annotation for one in (*options, *rest)}
        return run

    return wrap


def given(ctx: typer.Context) -> frozenset[str]:
    """The parameters that stand on the command line, or come from the environment."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return frozenset(
        name for name, source in sources.items() if source is not None and source.name != "DEFAULT"
    )


def pairs(texts: list[str] | None) -> dict[str, str]:
    """`name=value` options as a dict. Raises ValueError."""
    found = {}
    for text in texts or ():
        key, sep, value = text.partition("=")
        if not sep or not key:
            raise ValueError(f"{text!r} should read NAME=VALUE")
        found[key] = value
    return found
