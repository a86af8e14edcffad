"""Devices: their kinds, their health, and the limits of one node."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from karez.core.units import MILLI

MAX_DEVICES = 1024
"""Devices of one worker, cores included: no node has more."""

MAX_BYTES = 1 << 50
"""A pebibyte of memory or storage on one node: no node has more."""


class DeviceKind(StrEnum):
    """Kind of a device, or of an amount of memory or storage."""

    NPU = "npu"
    GPU = "gpu"
    CPU = "cpu"
    DPU = "dpu"
    MEMORY = "memory"
    STORAGE = "storage"


class Health(StrEnum):
    """Health of a device, from the best to the worst: how far it can be trusted with new work."""

    HEALTHY = "healthy"
    SUB_HEALTHY = "sub-healthy"
    PRE_SEPARATED = "pre-separated"
    SEPARATED = "separated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device of a node."""

    kind: DeviceKind
    index: int
    model: str = ""
    milli: int = MILLI
    memory_bytes: int = 0
    health: Health = Health.HEALTHY
    visible_as: str = ""
    """Name of the device for its vendor's runtime, such as a MIG instance's UUID; empty: its
    index."""

    @property
    def is_emulated(self) -> bool:
        """Whether the device is emulated on its node's CPUs."""
        return self.model == EMULATED


EMULATED: Final = "emulated"
"""Model of a device that its node emulates on CPUs. A request that names no model gets such a
device only in a pool that has no real device of the kind."""


def parse_emulated(text: str) -> int:
    """Read what a node emulates, such as `npu=4`; return the number of NPUs, 0 for empty text.

    Raises:
        ValueError: Another kind, or a number that no node has.
    """
    if not text:
        return 0
    kind, _, count = text.partition("=")
    if kind != DeviceKind.NPU or not count.isdigit() or not 0 < int(count) <= MAX_DEVICES:
        raise ValueError(
            f"cannot emulate {text!r}; say npu=COUNT, with a count of 1 to {MAX_DEVICES}"
        )
    return int(count)


IN_BYTES: Final = (DeviceKind.MEMORY, DeviceKind.STORAGE)
"""Kinds that are counted in bytes; the others in thousandths of a device."""
