"""`karez pool`: show nodes and devices, and take nodes out of use."""

from collections import Counter
from typing import Annotated

import typer

from karez.cli.client_options import Json, NodeName, client
from karez.cli.command_clock import sleep
from karez.cli.old_names import by_old_name
from karez.cli.output import clock, json_out, table
from karez.cli.remote.node_properties import maintenance, override
from karez.cli.remote.pool_import import import_pool
from karez.cli.remote.pool_map import LEGEND, pool_map
from karez.cli.terminal import say
from karez.core.devices import EMULATED, IN_BYTES, DeviceKind, Health
from karez.core.nodes import Node
from karez.core.resource_syntax import show_amount
from karez.core.units import show_bytes
from karez.core.workloads import Allocation

WATCH_S = 2.0
"""Seconds between two polls of a draining node."""
app = typer.Typer(help="Show and manage nodes and devices.", invoke_without_command=True)


@app.callback(invoke_without_command=True)
def show(ctx: typer.Context, as_json: Json = False) -> None:
    """Show and manage nodes and devices. Without a command: list all nodes and draw a map."""
    if ctx.invoked_subcommand:
        return
    nodes = client().pool()
    if as_json:
        json_out(nodes)
        return
    held = client().allocations()
    rows = [
        (
            n.id,
            _state(n),
            n.address,
            n.supernode,
            _devices(n, held),
            show_bytes(n.memory_bytes),
            ", ".join(f"{key}={value}" for key, value in n.labels.items()),
        )
        for n in nodes
    ]
    heads = ("node", "state", "address", "supernode", "held of", "memory", "labels")
    table(heads, rows, empty="no nodes")
    for line in ["", *pool_map(nodes, held), LEGEND]:
        say(line)


@app.command("cordon")
def cordon(node: NodeName) -> None:
    """Close a node to new work; running work continues."""
    client().cordon(node, closed=True)


@app.command("uncordon")
def uncordon(node: NodeName) -> None:
    """Open a cordoned node to new work."""
    client().cordon(node, closed=False)


@app.command("drain")
def drain(
    node: NodeName,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Wait until the node is empty.")
    ] = False,
) -> None:
    """Close a node to new work, and move preemptible jobs to other nodes.

    Other work stays until it ends; `karez pool` shows it.
    """
    client().drain(node)
    while True:
        held = client().allocations()
        here = [i for i, a in held.items() if any(g.node == node for g in a.grants)]
        message = (
            f"{node} is draining: {', '.join(here)} still there" if here else f"{node} is empty"
        )
        say(message)
        if not watch or not here:
            return
        sleep(WATCH_S)


@app.command("defragment")
def defragment(
    apply: Annotated[bool, typer.Option("--apply", help="Carry out the moves.")] = False,
    as_json: Json = False,
) -> None:
    """Plan which jobs to move to free whole nodes, and show the cost of the moves."""
    plan = client().defragment(carry_out=apply)
    if as_json:
        json_out(plan)
        return
    table(
        ("job", "project", "leaves", "takes", "loses device-s"),
        [
            (m.id, m.project, " ".join(m.leaves), " ".join(m.takes), f"{m.lost_device_s:.0f}")
            for m in plan.moves
        ],
        empty="Nothing can be brought together: only preemptible training jobs are moved.",
    )
    if plan.moves:
        done = "is being freed" if apply else "would be free"
        say(f"{', '.join(plan.freed)} {done}; {plan.lost_device_s:.0f} device-seconds lost")


def _state(node: Node) -> str:
    """Describe a node's state and next maintenance window."""
    if not node.windows:
        return node.state
    window = node.windows[0]
    return f"{node.state}, {clock(window.starts_at)} {window.show()}"


def _devices(node: Node, held: dict[str, Allocation]) -> str:
    """Describe a node's devices: held and total amount per kind, and unhealthy devices."""
    total: Counter[DeviceKind] = Counter()
    for device in node.devices:
        total[device.kind] += device.memory_bytes if device.kind in IN_BYTES else device.milli
    used: Counter[DeviceKind] = Counter()
    for allocation in held.values():
        for grant in allocation.grants:
            if grant.node == node.id:
                used.update(grant.amounts)
    unhealthy = Counter(device.health for device in node.devices if device.health != Health.HEALTHY)
    emulated = {device.kind for device in node.devices if device.is_emulated}
    words = [
        f"{show_amount(kind, used[kind])}/{show_amount(kind, size)} "
        + (f"{EMULATED} {kind}" if kind in emulated else kind)
        for kind, size in total.items()
    ]
    return ", ".join([*words, *(f"{count} {level}" for level, count in unhealthy.items())])


app.command("maintenance")(maintenance)
app.command("override")(override)
app.command("defrag", hidden=True)(by_old_name(defragment, "pool defrag"))  # its name in karez 0.1
app.command("mark", hidden=True)(by_old_name(override, "pool mark"))  # its name in karez 0.1
app.command("import")(import_pool)
APPS = {"pool": app}
