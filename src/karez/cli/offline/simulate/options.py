"""Options that several commands of `karez simulate` share."""

from pathlib import Path
from typing import Annotated

import typer

Report = Annotated[
    Path | None, typer.Option("--report", help="Write an HTML report with plots to this file.")
]
Inventory = Annotated[
    Path,
    typer.Option(
        help="Nodes of the simulated pool: a TOML, CSV or JSON file, or the name given to "
        "`karez pool import`."
    ),
]
