"""Resource requests: what one worker of a gang needs from one node."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from karez.core.devices import IN_BYTES, MAX_BYTES, MAX_DEVICES, DeviceKind
from karez.core.units import MILLI, show_bytes, show_devices
from karez.core.validation import FORBID

MAX_SPEED = 1e6
"""Greatest relative speed of an alternative; a larger number is a typing error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRequest:
    """One alternative of what a worker needs: a device, and what comes with it from the same node.

    `speed` is the work a worker does per second on it, relative to the other alternatives.
    """

    __pydantic_config__: ClassVar[Any] = FORBID

    kind: DeviceKind = DeviceKind.CPU
    milli: int = MILLI
    """Thousandths of the kind; 0 where the kind is memory or storage."""
    memory_bytes: int = 0
    storage_bytes: int = 0
    cpu_milli: int = 0
    """Thousandths of cores, beside a device of another kind."""
    dpu_milli: int = 0
    """Thousandths of a network card, beside a device of another kind."""
    models: tuple[str, ...] = ()
    """Accepted models; empty: every model."""
    speed: float = 1.0

    def __post_init__(self) -> None:
        amounts = (self.memory_bytes, self.storage_bytes, self.cpu_milli, self.dpu_milli)
        if min(amounts) < 0 or not 0 < self.speed <= MAX_SPEED:
            raise ValueError(
                f"no amount can be negative, and speed is above 0 and up to {MAX_SPEED:g}: "
                f"{self.show()}"
            )
        if max(self.memory_bytes, self.storage_bytes) > MAX_BYTES:
            raise ValueError(f"{self.show()}: no node has so many bytes")
        if max(self.cpu_milli, self.dpu_milli) > MAX_DEVICES * MILLI:
            raise ValueError(f"{self.show()}: no node has so many")
        if self.kind in IN_BYTES:
            self._check_bytes()
        else:
            self._check_devices()

    def _check_bytes(self) -> None:
        if self.milli or self.cpu_milli or self.dpu_milli or self.models:
            raise ValueError(f"{self.kind} is asked for in bytes and alone: milli = 0")
        if not (self.memory_bytes if self.kind == DeviceKind.MEMORY else self.storage_bytes):
            raise ValueError(f"a worker that needs {self.kind} needs some bytes of it")

    def _check_devices(self) -> None:
        if self.milli < 1:
            raise ValueError(f"a worker needs some of a device, got {self.milli / MILLI:g}")
        if self.milli > MAX_DEVICES * MILLI:
            raise ValueError(f"{self.milli / MILLI:g} devices are more than any node has")
        if self.kind != DeviceKind.DPU and self.milli > MILLI and self.milli % MILLI:
            raise ValueError(
                f"{self.milli / MILLI:g} {self.kind} is neither a fraction nor whole devices"
            )
        if (self.kind == DeviceKind.CPU and self.cpu_milli) or (
            self.kind == DeviceKind.DPU and self.dpu_milli
        ):
            raise ValueError(f"{self.kind} is asked for twice")

    @property
    def amounts(self) -> Mapping[DeviceKind, int]:
        """Amount of each kind that one worker takes, in the kind's unit; zeros left out."""
        by_kind = {
            DeviceKind.CPU: self.cpu_milli,
            DeviceKind.DPU: self.dpu_milli,
            DeviceKind.MEMORY: self.memory_bytes,
            DeviceKind.STORAGE: self.storage_bytes,
        }
        if self.kind not in IN_BYTES:
            by_kind[self.kind] = self.milli
        return {kind: amount for kind, amount in by_kind.items() if amount}

    def show(self) -> str:
        """Describe the request for people, in reasons and tables."""
        model = f" {'|'.join(self.models)}" if self.models else ""
        parts = [] if self.kind in IN_BYTES else [f"{show_devices(self.milli)} {self.kind}{model}"]
        if self.cpu_milli:
            parts.append(f"{show_devices(self.cpu_milli)} cpu")
        if self.memory_bytes:
            parts.append(show_bytes(self.memory_bytes))
        if self.dpu_milli:
            parts.append(f"{show_devices(self.dpu_milli)} dpu")
        if self.storage_bytes:
            parts.append(f"{show_bytes(self.storage_bytes)} storage")
        return " + ".join(parts)
