"""Reads the nodes of a pool from a file in one of three formats, told apart by content.

TOML, one table for each kind of node:

    [[nodes]]
    name = "train"          # optional; nodes are called train-000000, train-000001, ...
    count = 16
    gpu = 8                 # or npu = 8
    model = "A100"          # optional
    cpu = 96                # cores, optional
    memory = "768GiB"       # optional
    dpu = 2                 # network cards, optional
    storage = "4TiB"        # local disk, optional
    per_supernode = 48      # optional: so many nodes in a row are one supernode
    project = "research"    # optional: only this project's work goes there
    labels = { zone = "a" } # optional

CSV with the columns of openb's nodes (`sn,cpu_milli,memory_mib,gpu,model`), or the JSON that
`karez pool --json` prints.
"""

import json
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from karez.core.codec import from_json
from karez.core.devices import MAX_BYTES, Device, DeviceKind
from karez.core.errors import BadRequest
from karez.core.nodes import Node, NodeId
from karez.core.units import MILLI, parse_bytes
from karez.simulation.openb import read_nodes

PROJECT: Final = "project"
"""Label of nodes that only one project may use."""
MOST: Final = {
    "count": 200_000,
    "npu": 64,
    "gpu": 64,
    "cpu": 1024,
    "dpu": 64,
    "per_supernode": 200_000,
}
"""Largest amounts: the design goes to 100,000 devices; larger amounts are typing errors."""
_KNOWN = {*MOST, "name", "model", "memory", "storage", "project", "labels", "site", "cluster"}


def read_inventory(text: str, file: str) -> Sequence[Node]:
    """Read the nodes of an inventory file. Raises BadRequest naming the file, place and key."""
    head = text.lstrip()
    if head.startswith(("[{", "[\n", "[]", "[ ")):
        nodes = _from_json(text, file)
    elif "sn" in (name.strip() for name in head.split("\n", 1)[0].split(",")):
        nodes = _from_csv(text, file)
    else:
        nodes = _from_toml(text, file)
    if len({node.id for node in nodes}) != len(nodes):
        raise BadRequest(problem=f"in {file}: two nodes would have the same name")
    models = {(d.kind, d.model) for devices in {n.devices for n in nodes} for d in devices}
    accelerators = [model for kind, model in models if kind in (DeviceKind.NPU, DeviceKind.GPU)]
    if len(accelerators) > MOST_MODELS:
        raise BadRequest(problem=f"in {file}: more than {MOST_MODELS} models of accelerators")
    for node in {n.devices: n for n in nodes}.values():
        _check(node, file)
    return nodes


MOST_MODELS: Final = 62
"""Largest number of models: each is one bit of an integer."""


def _check(node: Node, file: str) -> None:
    """Refuse duplicate devices, and more or larger devices than any node has."""
    counts = Counter(device.kind for device in node.devices)
    most = {DeviceKind(kind): MOST[kind] for kind in ("npu", "gpu", "cpu", "dpu")}
    for kind, count in counts.items():
        if count > most.get(kind, MOST["dpu"]):
            raise BadRequest(problem=f"in {file}, node {node.id}: {count} {kind} devices")
    if len({(device.kind, device.index) for device in node.devices}) < len(node.devices):
        raise BadRequest(problem=f"in {file}, node {node.id}: a device is there twice")
    sizes = [node.memory_bytes, *(device.memory_bytes for device in node.devices)]
    fine = all(0 < device.milli <= MILLI for device in node.devices)
    if not fine or not all(0 <= size <= MAX_BYTES for size in sizes):
        raise BadRequest(problem=f"in {file}, node {node.id}: an amount is out of bounds")


def _from_toml(text: str, file: str) -> list[Node]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadRequest(problem=f"in {file}: invalid TOML: {error}") from error
    groups = tables.get("nodes")
    if not isinstance(groups, list) or not groups or set(tables) != {"nodes"}:
        raise BadRequest(problem=f"in {file}: it should hold [[nodes]] tables and nothing else")
    nodes: list[Node] = []
    for number, group in enumerate(groups, 1):
        nodes += _group(group, f"{file}, [[nodes]] {number}", first=len(nodes))
    return nodes


def _from_json(text: str, file: str) -> list[Node]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRequest(problem=f"in {file}, line {error.lineno}: {error.msg}") from error
    nodes = []
    for number, row in enumerate(rows, 1):
        try:
            nodes.append(from_json(Node, row))
        except ValueError as error:
            raise BadRequest(problem=f"in {file}, node {number}: {error}") from error
    if not nodes:
        raise BadRequest(problem=f"the file {file} holds no node")
    return nodes


def _from_csv(text: str, file: str) -> list[Node]:
    """Read openb's nodes: whole cores, and the GPUs' model."""
    nodes = []
    for row in read_nodes(text.splitlines(), file):
        cpu_milli, memory_bytes, _, _ = row.bulk
        if cpu_milli > MOST["cpu"] * MILLI:
            raise BadRequest(
                problem=f"in {file}, node {row.name}: {cpu_milli} thousandths of a core"
            )
        model = row.devices[0][0] if row.devices else ""
        devices = (
            *_devices(DeviceKind.GPU, len(row.devices), model),
            *_devices(DeviceKind.CPU, cpu_milli // MILLI, ""),
        )
        nodes.append(
            Node(id=NodeId(row.name), address="", devices=devices, memory_bytes=memory_bytes)
        )
    return nodes


@cache
def _devices(kind: DeviceKind, count: int, model: str) -> tuple[Device, ...]:
    return tuple(Device(kind=kind, index=index, model=model) for index in range(count))


def _group(group: Mapping[str, Any], where: str, first: int) -> list[Node]:
    if not isinstance(group, dict):
        raise BadRequest(problem=f"in {where}: it is no table")
    unknown = sorted(set(group) - _KNOWN)
    if unknown:
        raise BadRequest(problem=f"in {where}: unknown key {unknown[0]!r}; known: {sorted(_KNOWN)}")
    amounts = {key: _amount(group, key, where) for key in MOST}
    name = str(group.get("name") or f"n{first}")
    model = str(group.get("model", ""))
    storage = _bytes(group, "storage", where)
    disk = (Device(kind=DeviceKind.STORAGE, index=0, memory_bytes=storage),) if storage else ()
    devices = (
        *_devices(DeviceKind.NPU, amounts["npu"], model),
        *_devices(DeviceKind.GPU, amounts["gpu"], model),
        *_devices(DeviceKind.CPU, amounts["cpu"], ""),
        *_devices(DeviceKind.DPU, amounts["dpu"], ""),
        *disk,
    )
    labels = group.get("labels", {})
    if not isinstance(labels, dict):
        raise BadRequest(problem=f"in {where}, labels: write them like {{ zone = 'a' }}")
    named = {key: str(value) for key, value in labels.items()}
    project = str(group.get("project", ""))
    block = amounts["per_supernode"]
    return [
        Node(
            id=NodeId(f"{name}-{number:06d}"),
            address="",
            site=str(group.get("site", "site-1")),
            cluster=str(group.get("cluster", "cluster-1")),
            devices=devices,
            memory_bytes=_bytes(group, "memory", where),
            supernode=f"{name}/{number // block}" if block else "",
            labels={**named, PROJECT: project} if project else named,
        )
        for number in range(amounts["count"] or 1)
    ]


def _bytes(group: Mapping[str, Any], key: str, where: str) -> int:
    try:
        amount = parse_bytes(group.get(key, 0))
    except (ValueError, TypeError) as error:
        raise BadRequest(problem=f"in {where}, {key}: {error}") from error
    if not 0 <= amount <= MAX_BYTES:
        raise BadRequest(problem=f"in {where}, {key}: {amount} bytes are out of bounds")
    return amount


def _amount(group: Mapping[str, Any], key: str, where: str) -> int:
    value = group.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST[key]:
        raise BadRequest(
            problem=f"in {where}, {key}: {value!r} is no whole number up to {MOST[key]}"
        )
    return value
