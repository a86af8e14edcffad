"""Lines for a terminal, in which nothing that users wrote steers it; and its environment."""

import os
import re
from collections.abc import Mapping

import typer

from karez.core.names import printable


def say(text: str = "", *, nl: bool = True, err: bool = False) -> None:
    """Print a text, its line breaks and tabs, and an escape for what would steer a terminal."""
    parts = re.split("([\n\t])", text)
    safe = "".join(part if part in ("\n", "\t") else printable(part) for part in parts)
    typer.echo(safe, nl=nl, err=err)


def inherited(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of this terminal, which programs inherit, and `env` over it."""
    return {**os.environ, **env}  # noqa: TID251 - programs inherit this environment
