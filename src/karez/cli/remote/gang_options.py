"""The options that describe a gang; karez.core.gang_syntax reads them."""

from typing import Annotated

import typer

OnNodes = Annotated[
    list[str] | None, typer.Option("--on", help="Only on this node or label=value; repeat.")
]
OffNodes = Annotated[
    list[str] | None, typer.Option("--off", help="Never on this node or label=value; repeat.")
]
Roles = Annotated[
    list[str] | None,
    typer.Option("--role", help="NAME:COUNT:cpu=4,memory=8GiB: more workers of another kind."),
]
