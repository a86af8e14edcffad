"""SQL of the models of devices that allocations hold, as their nodes have reported them."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, select

from karez.core.devices import EMULATED, DeviceKind
from karez.core.grants import Grant
from karez.store import schema

_AT_ONCE: Final = 500
"""Ids in one statement: databases take only so many parameters."""
Models = Mapping[tuple[str, str, int], str]
"""(node, kind, index) -> the model of that device."""


def device_amounts(tx: Connection, grants: Sequence[Sequence[Grant]]) -> list[dict[str, int]]:
    """Thousandths of devices by kind and model, such as `npu:910b`, of each allocation."""
    models = _models(tx, {grant.node for held in grants for grant in held})
    return [_amounts(held, models) for held in grants]


def _amounts(grants: Sequence[Grant], models: Models) -> dict[str, int]:
    """Thousandths of devices by kind and model, such as `npu:910b`."""
    amounts: dict[str, int] = {}
    for grant in grants:
        of_devices = [
            (
                _named(grant.kind, grant, models.get((grant.node, grant.kind.value, index), "")),
                milli,
            )
            for index, milli in grant.devices
        ]
        if grant.dpu_milli:
            of_devices.append((_named(DeviceKind.DPU, grant, ""), grant.dpu_milli))
        for name, milli in of_devices:
            amounts[name] = amounts.get(name, 0) + milli
    return amounts


def _named(kind: DeviceKind, grant: Grant, model: str) -> str:
    model = EMULATED if grant.is_emulated else model
    return f"{kind}:{model}" if model else kind.value


def _models(tx: Connection, nodes: Collection[str]) -> Models:
    """Models of the devices of some nodes, as these have reported them."""
    found: dict[tuple[str, str, int], str] = {}
    table, names = schema.nodes, sorted(nodes)
    for at in range(0, len(names), _AT_ONCE):
        some = table.c.id.in_(names[at : at + _AT_ONCE])
        for node, body in tx.execute(select(table.c.id, table.c.body).where(some)):
            for device in json.loads(body).get("devices", ()):
                key = (node, device["kind"], device["index"])
                found[key] = device.get("model", "")
    return found
