"""Lines for a terminal, in which nothing that users wrote steers it."""

import re

import typer

from karez.core.names import printable


def say(text: str = "", *, nl: bool = True, err: bool = False) -> None:
    """Print a text, its line breaks and tabs, and an escape for what would steer a terminal."""
    parts = re.split("([\n\t])", text)
    safe = "".join(part if part in ("\n", "\t") else printable(part) for part in parts)
    typer.echo(safe, nl=nl, err=err)
