"""Grants: what one worker of a gang holds of a node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from karez.core.devices import EMULATED, DeviceKind
from karez.core.nodes import NodeId
from karez.core.resource_requests import ResourceRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Devices, memory and storage of one node that one worker holds."""

    node: NodeId
    kind: DeviceKind
    devices: tuple[tuple[int, int], ...]
    """Pairs of (device index, thousandths); empty if devices of the kind have no numbers."""
    memory_bytes: int = 0
    cores: tuple[tuple[int, int], ...] = ()
    """Cores beside a device of another kind: pairs of (index, thousandths)."""
    dpu_milli: int = 0
    storage_bytes: int = 0
    role: str = ""
    """Role of the gang that holds the grant; empty: a worker."""
    is_emulated: bool = False
    """Whether the devices are emulated on the node's CPUs."""

    @property
    def milli(self) -> int:
        """Sum of the thousandths of all numbered devices."""
        return sum(milli for _, milli in self.devices)

    @property
    def amounts(self) -> Mapping[DeviceKind, int]:
        """Amount held of each kind, in the kind's unit; zeros left out."""
        by_kind = {
            DeviceKind.CPU: sum(milli for _, milli in self.cores),
            DeviceKind.DPU: self.dpu_milli,
            DeviceKind.MEMORY: self.memory_bytes,
            DeviceKind.STORAGE: self.storage_bytes,
        }
        if self.devices:
            by_kind[self.kind] = self.milli
        return {kind: amount for kind, amount in by_kind.items() if amount}

    def meets(self, need: ResourceRequest) -> bool:
        """Whether the grant has the kind and amounts of a request; models are not compared."""
        return self.kind == need.kind and dict(self.amounts) == dict(need.amounts)

    def need_among(self, each: Sequence[ResourceRequest]) -> ResourceRequest:
        """The alternative that the grant was made for.

        Emulated devices go together with emulated ones: then the alternative names that model.
        """
        need = next((need for need in each if self.meets(need)), each[0])
        return replace(need, models=(EMULATED,)) if self.is_emulated else need

    @property
    def device_name(self) -> str:
        """Kind of the devices, and whether they are emulated."""
        return device_name(self.kind, EMULATED if self.is_emulated else "")

    @property
    def indices(self) -> tuple[int, ...]:
        """Indices of the devices on their node."""
        return tuple(index for index, _ in self.devices)


def device_name(kind: str, model: str) -> str:
    """Kind of a device, and whether it is emulated, for people."""
    return f"{EMULATED} {kind}" if model == EMULATED else kind
