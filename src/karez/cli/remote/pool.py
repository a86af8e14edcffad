"""`karez pool ...`."""

import datetime
import json
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import Json, client
from karez.cli.inventory_files import kept_inventory, nodes_of
from karez.cli.options import pairs
from karez.cli.output import clock, json_out, table
from karez.cli.remote.pool_map import LEGEND, pool_map
from karez.core.codec import to_json
from karez.core.errors import BadRequest
from karez.core.resources import (
    IN_BYTES,
    DeviceKind,
    Health,
    MaintenanceWindow,
    Node,
    NodeId,
    NodeOverride,
    show_amount,
)
from karez.core.units import parse_seconds, show_bytes
from karez.core.workloads import Allocation

WATCH_S = 2.0
"""Seconds between two looks at a node that drains."""
MOST_SHOWN = 64
"""Nodes of an imported inventory that are drawn."""
app = typer.Typer(help="Nodes and devices.", invoke_without_command=True)


@app.callback(invoke_without_command=True)
def show(ctx: typer.Context, as_json: Json = False) -> None:
    """Nodes, their devices and what is held of them."""
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
        typer.echo(line)


@app.command("cordon")
def cordon(node: str) -> None:
    """Place nothing new on a node; what runs there goes on."""
    client().cordon(node, closed=True)


@app.command("uncordon")
def uncordon(node: str) -> None:
    """Place work on a node again."""
    client().cordon(node, closed=False)


@app.command("drain")
def drain(
    node: str,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay until it is empty.")] = False,
) -> None:
    """Close a node, and have jobs that are preemptible go on elsewhere.

    What is not preemptible stays until it ends; `karez pool` shows it.
    """
    client().drain(node)
    while True:
        held = client().allocations()
        here = [i for i, one in held.items() if any(g.node == node for g in one.grants)]
        said = f"{node} is draining: {', '.join(here)} still there" if here else f"{node} is empty"
        typer.echo(said)
        if not watch or not here:
            return
        time.sleep(WATCH_S)  # noqa: TID251 - a person watches


@app.command("maintenance")
def maintenance(
    node: str,
    starts: Annotated[str, typer.Option("--from", help="When: 2026-12-01T02:00, or in 2h.")] = "",
    length: Annotated[str, typer.Option("--for", help="How long: 90m.")] = "",
    reason: Annotated[str, typer.Option(help="For those who ask.")] = "",
    none: Annotated[bool, typer.Option("--none", help="Forget what was planned.")] = False,
) -> None:
    """Plan when a node is needed for something else.

    Nothing is placed there that would not be over by then, unless it can be moved.
    Example: karez pool maintenance node-3 --from 2026-12-01T02:00 --for 2h --reason firmware
    """
    if none:
        client().maintenance(node, [])
        typer.echo(f"nothing is planned for {node}")
        return
    try:
        begins = _when(starts)
        window = MaintenanceWindow(
            starts_at=begins, ends_at=begins + parse_seconds(length or "1h"), reason=reason
        )
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    known = {one.id: one for one in client().pool()}
    planned = known[NodeId(node)].windows if NodeId(node) in known else ()
    for one in client().maintenance(node, [*planned, window]):
        typer.echo(f"{node}: {clock(one.starts_at)} to {clock(one.ends_at)}, {one.show()}")


def _when(text: str) -> float:
    """An instant: a date and time of this host's zone, or `in 2h`, or now."""
    now = datetime.datetime.now().astimezone()  # noqa: TID251 - a person says when
    if not text:
        return now.timestamp()
    if text.startswith("in "):
        return now.timestamp() + parse_seconds(text.removeprefix("in ").strip())
    moment = datetime.datetime.fromisoformat(text)
    return moment.replace(tzinfo=moment.tzinfo or now.tzinfo).timestamp()


@app.command("mark", hidden=True)  # its name in karez 0.1
@app.command("override")
def mark(
    node: str,
    label: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; repeat.")] = None,
    health: Annotated[
        list[str] | None, typer.Option(help="npu:3=pre-separated: trust it less; repeat.")
    ] = None,
    supernode: Annotated[str, typer.Option(help="The supernode it is part of.")] = "",
    cluster: Annotated[str, typer.Option(help="Its cluster.")] = "",
    site: Annotated[str, typer.Option(help="Its site.")] = "",
    none: Annotated[bool, typer.Option("--none", help="Forget all that was said.")] = False,
) -> None:
    """Say where a node stands, give it labels, or take devices out of use.

    Healthy and sub-healthy devices take work, pre-separated and separated ones do not. What was
    said before stays, unless it is said anew. Example: karez pool override n3 --label zone=a
    """
    before = NodeOverride() if none else client().overrides().get(node, NodeOverride())
    try:
        levels = {name: Health(level) for name, level in pairs(health).items()}
        said = NodeOverride(
            site=site or before.site,
            cluster=cluster or before.cluster,
            supernode=supernode or before.supernode,
            labels={**before.labels, **pairs(label)},
            health={**before.health, **levels},
        )
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    client().override_node(node, said)


@app.command("defrag", hidden=True)  # its name in karez 0.1
@app.command("defragment")
def defrag(
    apply: Annotated[bool, typer.Option("--apply", help="Make the moves.")] = False,
    as_json: Json = False,
) -> None:
    """Say which jobs could be moved together to free whole nodes, and what that costs."""
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
        typer.echo(f"{', '.join(plan.freed)} {done}; {plan.lost_device_s:.0f} device-seconds lost")


@app.command("import")
def import_pool(
    file: Annotated[Path, typer.Argument(help="TOML, CSV of openb's nodes, or pool --json.")],
    name: Annotated[str, typer.Option(help="To be called by; default: the file's name.")] = "",
    as_json: Json = False,
) -> None:
    """Keep an inventory by name, for `karez simulate ... --inventory NAME` and `what-if`."""
    nodes = nodes_of(file)
    kept = kept_inventory(name or file.stem)
    try:
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept.write_text(json.dumps([to_json(node) for node in nodes]))
    except OSError as error:
        raise BadRequest(problem=f"cannot write {kept}: {error.strerror}") from error
    if as_json:
        json_out(list(nodes))
        return
    kinds = Counter(device.kind for node in nodes for device in node.devices)
    words = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    typer.echo(f"{len(nodes)} nodes with {words}, kept as {name or file.stem}")
    for line in pool_map(nodes[:MOST_SHOWN], {}):
        typer.echo(line)
    if len(nodes) > MOST_SHOWN:
        typer.echo(f"... and {len(nodes) - MOST_SHOWN} more")


def _state(node: Node) -> str:
    """A node's state, and the maintenance that is planned next."""
    if not node.windows:
        return node.state
    window = node.windows[0]
    return f"{node.state}, {clock(window.starts_at)} {window.show()}"


def _devices(node: Node, held: dict[str, Allocation]) -> str:
    """What there is of each kind, how much is held, and what is not well."""
    total: Counter[DeviceKind] = Counter()
    for device in node.devices:
        total[device.kind] += device.memory_bytes if device.kind in IN_BYTES else device.milli
    used: Counter[DeviceKind] = Counter()
    for allocation in held.values():
        for grant in allocation.grants:
            if grant.node == node.id:
                used.update(grant.amounts)
    ill = Counter(device.health for device in node.devices if device.health != Health.HEALTHY)
    words = [
        f"{show_amount(kind, used[kind])}/{show_amount(kind, size)} {kind}"
        for kind, size in total.items()
    ]
    return ", ".join([*words, *(f"{count} {level}" for level, count in ill.items())])


APPS = {"pool": app}
