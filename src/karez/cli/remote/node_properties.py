"""`karez pool maintenance` and `override`: maintenance windows and properties of nodes."""

import datetime
from dataclasses import dataclass
from typing import Annotated

import typer

from karez.cli.client_options import NodeName, client
from karez.cli.options import pairs, takes
from karez.cli.output import clock
from karez.cli.terminal import say
from karez.core.devices import Health
from karez.core.errors import BadRequest
from karez.core.nodes import MaintenanceWindow, NodeId, NodeOverride
from karez.core.units import parse_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceOptions:
    """Options of `karez pool maintenance`."""

    node: NodeName
    starts: Annotated[
        str,
        typer.Option(
            "--from", help="Start: a local time such as 2026-12-01T02:00, or 'in 2h'. Default: now."
        ),
    ] = ""
    length: Annotated[
        str, typer.Option("--for", help="Length of the window, such as 90m. Default: 1h.")
    ] = ""
    reason: Annotated[str, typer.Option(help="Reason, shown to users whose jobs wait.")] = ""
    none: Annotated[
        bool, typer.Option("--none", help="Remove all planned windows of the node.")
    ] = False


@takes(MaintenanceOptions)
def maintenance(options: MaintenanceOptions) -> None:
    """Plan a maintenance window of a node.

    Only work that ends before the window or that can be moved is placed on the node.

    Example: karez pool maintenance node-3 --from 2026-12-01T02:00 --for 2h --reason firmware
    """
    if options.none:
        client().maintenance(options.node, [])
        say(f"nothing is planned for {options.node}")
        return
    try:
        begins = _when(options.starts)
        window = MaintenanceWindow(
            starts_at=begins,
            ends_at=begins + parse_seconds(options.length or "1h"),
            reason=options.reason,
        )
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    nodes = {item.id: item for item in client().pool()}
    planned = nodes[NodeId(options.node)].windows if NodeId(options.node) in nodes else ()
    for item in client().maintenance(options.node, [*planned, window]):
        say(f"{options.node}: {clock(item.starts_at)} to {clock(item.ends_at)}, {item.show()}")


def _when(text: str) -> float:
    """Parse a start in UTC epoch seconds: a local time, `in 2h`, or empty for now."""
    now = datetime.datetime.now().astimezone()  # noqa: TID251 - times are relative to the user's clock
    if not text:
        return now.timestamp()
    if text.startswith("in "):
        return now.timestamp() + parse_seconds(text.removeprefix("in ").strip())
    moment = datetime.datetime.fromisoformat(text)
    return moment.replace(tzinfo=moment.tzinfo or now.tzinfo).timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideOptions:
    """Options of `karez pool override`."""

    node: NodeName
    label: Annotated[
        list[str] | None, typer.Option(help="Label of the node, as NAME=VALUE. Repeatable.")
    ] = None
    health: Annotated[
        list[str] | None,
        typer.Option(help="Health level of a device, such as npu:3=pre-separated. Repeatable."),
    ] = None
    supernode: Annotated[str, typer.Option(help="Supernode that the node belongs to.")] = ""
    cluster: Annotated[str, typer.Option(help="Cluster that the node belongs to.")] = ""
    site: Annotated[str, typer.Option(help="Site that the node belongs to.")] = ""
    none: Annotated[
        bool, typer.Option("--none", help="Remove earlier overrides of the node first.")
    ] = False


@takes(OverrideOptions)
def override(options: OverrideOptions) -> None:
    """Override a node's topology and labels, or take devices of the node out of use.

    Healthy and sub-healthy devices take work, pre-separated and separated ones do not. Earlier
    overrides stay unless they are replaced.

    Example: karez pool override n3 --label zone=a
    """
    before = (
        NodeOverride() if options.none else client().overrides().get(options.node, NodeOverride())
    )
    try:
        levels = {name: Health(level) for name, level in pairs(options.health).items()}
        changed = NodeOverride(
            site=options.site or before.site,
            cluster=options.cluster or before.cluster,
            supernode=options.supernode or before.supernode,
            labels={**before.labels, **pairs(options.label)},
            health={**before.health, **levels},
        )
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    client().override_node(options.node, changed)
