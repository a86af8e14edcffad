"""`karez pool import`: keep an inventory of nodes by name."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import Json
from karez.cli.inventory_files import kept_inventory, nodes_of
from karez.cli.output import json_out
from karez.cli.remote.pool_map import pool_map
from karez.cli.terminal import say
from karez.core.codec import to_json
from karez.core.errors import BadRequest
from karez.core.nodes import Node

MAX_DRAWN = 64
"""Number of nodes of an imported inventory that are drawn."""


def import_pool(
    file: Annotated[
        Path,
        typer.Argument(
            help="Inventory: TOML, CSV of openb's nodes, or the output of `karez pool --json`."
        ),
    ],
    name: Annotated[
        str, typer.Option(help="Name of the inventory. Default: the name of the file.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Import an inventory by name, for `karez simulate queue --inventory NAME` and `what-if`."""
    nodes = nodes_of(file)
    copy = kept_inventory(name or file.stem)
    try:
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        copy.write_text(json.dumps([to_json(node) for node in nodes]))
    except OSError as error:
        raise BadRequest(problem=f"cannot write {copy}: {error.strerror}") from error
    if as_json:
        json_out(list(nodes))
        return
    _show(nodes, name or file.stem)


def _show(nodes: Sequence[Node], name: str) -> None:
    kinds = Counter(device.kind for node in nodes for device in node.devices)
    words = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    say(f"{len(nodes)} nodes with {words}, kept as {name}")
    for line in pool_map(nodes[:MAX_DRAWN], {}):
        say(line)
    if len(nodes) > MAX_DRAWN:
        say(f"... and {len(nodes) - MAX_DRAWN} more")
