"""Reads an inventory file: the nodes of a pool, for simulation.

TOML, one table for each kind of node:

    [[nodes]]
    name = "train"          # optional; nodes are called train-0, train-1, ...
    count = 16
    gpu = 8                 # or npu = 8
    model = "A100"          # optional
    cpu = 96                # cores, optional
    memory = "768GiB"       # optional
    per_supernode = 48      # optional: so many nodes in a row are one supernode
    project = "research"    # optional: only this project's work goes there
"""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from karez.core.errors import BadRequest
from karez.core.resources import Device, DeviceKind, Node, NodeId
from karez.core.units import parse_bytes

PROJECT: Final = "project"
"""The label of nodes that take one project's work only."""
MOST: Final = {"count": 200_000, "npu": 64, "gpu": 64, "cpu": 1024, "per_supernode": 200_000}
"""Largest amounts: the design goes to 100,000 devices; beyond this lies a slip of the pen."""
_KNOWN = {*MOST, "name", "model", "memory", "project"}


def read_inventory(text: str, file: str) -> Sequence[Node]:
    """The nodes of an inventory file. Raises BadRequest naming the file, table and key."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadRequest(problem=f"in {file}: this is no TOML: {error}") from error
    groups = tables.get("nodes")
    if not isinstance(groups, list) or not groups or set(tables) != {"nodes"}:
        raise BadRequest(problem=f"in {file}: it should hold [[nodes]] tables and nothing else")
    nodes: list[Node] = []
    for number, group in enumerate(groups, 1):
        nodes += _group(group, f"{file}, [[nodes]] {number}", first=len(nodes))
    if len({node.id for node in nodes}) != len(nodes):
        raise BadRequest(problem=f"in {file}: two nodes would have the same name")
    return nodes


def _group(group: Mapping[str, Any], where: str, first: int) -> list[Node]:
    unknown = sorted(set(group) - _KNOWN)
    if unknown:
        raise BadRequest(problem=f"in {where}: unknown key {unknown[0]!r}; known: {sorted(_KNOWN)}")
    amounts = {key: _amount(group, key, where) for key in MOST}
    name = str(group.get("name") or f"n{first}")
    project, model = str(group.get("project", "")), str(group.get("model", ""))
    try:
        memory_bytes = parse_bytes(group.get("memory", 0))
    except (ValueError, TypeError) as error:
        raise BadRequest(problem=f"in {where}, memory: {error}") from error
    devices = tuple(
        Device(kind=kind, index=index, model=model if kind != DeviceKind.CPU else "")
        for kind in (DeviceKind.NPU, DeviceKind.GPU, DeviceKind.CPU)
        for index in range(amounts[kind.value])
    )
    block = amounts["per_supernode"]
    return [
        Node(
            id=NodeId(f"{name}-{number:06d}"),
            address="",
            devices=devices,
            memory_bytes=memory_bytes,
            supernode=f"{name}/{number // block}" if block else "",
            labels={PROJECT: project} if project else {},
        )
        for number in range(amounts["count"] or 1)
    ]


def _amount(group: Mapping[str, Any], key: str, where: str) -> int:
    value = group.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST[key]:
        raise BadRequest(
            problem=f"in {where}, {key}: {value!r} is no whole number up to {MOST[key]}"
        )
    return value
