"""Options that describe a gang; karez.core.gang_syntax parses the values."""

from typing import Annotated

import typer

OnNodes = Annotated[
    list[str] | None,
    typer.Option(
        "--on", help="Place workers only on this node or on nodes with LABEL=VALUE. Repeatable."
    ),
]
OffNodes = Annotated[
    list[str] | None,
    typer.Option(
        "--off", help="Never place workers on this node or on nodes with LABEL=VALUE. Repeatable."
    ),
]
Roles = Annotated[
    list[str] | None,
    typer.Option(
        "--role", help="Additional workers of another kind, as NAME:COUNT:cpu=4,memory=8GiB."
    ),
]
