"""`karez pool ...`."""

from collections import Counter

import typer

from karez.cli.connect import Json, client
from karez.cli.picture import LEGEND, picture
from karez.cli.show import json_out, table
from karez.client import calls
from karez.core.resources import Node
from karez.core.units import MILLI, show_bytes
from karez.core.workloads import Allocation

app = typer.Typer(help="Nodes and devices.", invoke_without_command=True)


@app.callback(invoke_without_command=True)
def show(ctx: typer.Context, as_json: Json = False) -> None:
    """Nodes, their devices and what is held of them."""
    if ctx.invoked_subcommand:
        return
    nodes = client().call(calls.pool())
    if as_json:
        json_out(nodes)
        return
    held = client().call(calls.allocations())
    rows = [
        (n.id, n.state, n.address, n.supernode, _devices(n, held), show_bytes(n.memory_bytes))
        for n in nodes
    ]
    table(("node", "state", "address", "supernode", "devices", "memory"), rows, empty="no nodes")
    for line in ["", *picture(nodes, held), LEGEND]:
        typer.echo(line)


@app.command("cordon")
def cordon(node: str) -> None:
    """Place nothing new on a node; what runs there goes on."""
    client().call(calls.cordon(node, closed=True))


@app.command("uncordon")
def uncordon(node: str) -> None:
    """Place work on a node again."""
    client().call(calls.cordon(node, closed=False))


def _devices(node: Node, held: dict[str, Allocation]) -> str:
    total = Counter(device.kind for device in node.devices)
    used: Counter[str] = Counter()
    for allocation in held.values():
        for grant in allocation.grants:
            if grant.node == node.id:
                used[grant.kind] += grant.milli
    return ", ".join(f"{used[kind] / MILLI:g}/{count} {kind} held" for kind, count in total.items())


APPS = {"pool": app}
