"""Counts which thousandth of which device is held. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.units import MILLI

HeldDevices = Counter[tuple[NodeId, str, int]]
"""(node, kind, number) -> thousandths of the device that are held."""


def held_devices(grants: Iterable[Grant]) -> HeldDevices:
    """Count the numbered devices of grants."""
    held: HeldDevices = Counter()
    for grant in grants:
        held.update({(grant.node, grant.kind, index): n for index, n in grant.devices})
        held.update({(grant.node, DeviceKind.CPU, index): n for index, n in grant.cores})
    return held


def are_free(grants: Sequence[Grant], held: HeldDevices) -> bool:
    """Whether nobody holds these devices: the last check before they are given."""
    return all(held[device] + n <= MILLI for device, n in held_devices(grants).items())
