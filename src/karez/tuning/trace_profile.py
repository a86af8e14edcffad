"""Finds hotspots in trace_view.json: what kept the host from launching kernels."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

from karez.tuning.hotspots import Hotspot, Total, number_of
from karez.tuning.json_stream import events

LOADER_US, GC_US, MEMORY_US = 10_000.0, 1_000.0, 10_000.0
"""Shortest time of a slow batch and of a slow collection, and of memory calls in all (advisor)."""
SYNC_BATCHNORMS, SYNC_SHARE = 20, 0.5
"""Number of synchronised batch norms, and share of launches that are waited for (advisor)."""
_MEMORY = {
    "AscendCL@aclMallocMemInner": "export PYTORCH_NPU_ALLOC_CONF=expandable_segments:True",
    "AscendCL@aclrtFreePhysical": "the memory is nearly full: a smaller batch, no empty_cache()",
    "AscendCL@aclrtFree": "the memory is nearly full: a smaller batch, no empty_cache()",
}


def trace_hotspots(file: TextIO) -> Iterator[Hotspot]:
    """The hotspots among the host's events."""
    totals = _TraceTotals()
    for event in events(file):
        totals.add(str(event.get("name", "")), number_of(event.get("dur")))
    return totals.hotspots()


@dataclass(slots=True)
class _TraceTotals:
    """Sums over trace_view.json."""

    loads: Total = field(default_factory=Total)
    collections: Total = field(default_factory=Total)
    batchnorms: Total = field(default_factory=Total)
    waits: Total = field(default_factory=Total)
    memory: dict[str, Total] = field(default_factory=lambda: defaultdict(Total))
    optimizers: dict[str, Total] = field(default_factory=lambda: defaultdict(Total))
    launches: int = 0
    is_after_launch: bool = False

    def add(self, name: str, time_us: float) -> None:
        if name.startswith("Node@launch"):
            self.launches, self.is_after_launch = self.launches + 1, True
        elif name.startswith("AscendCL@aclrtSynchronizeStream"):
            if self.is_after_launch:
                self.waits.add(time_us)
            self.is_after_launch = False
        elif "dataloader" in name.lower() and time_us > LOADER_US:
            self.loads.add(time_us)
        elif name == "GC" and time_us > GC_US:
            self.collections.add(time_us)
        elif name.lower() == "syncbatchnorm":
            self.batchnorms.add(time_us)
        elif name in _MEMORY:
            self.memory[name].add(time_us)
        elif name.startswith("Optimizer.step#") and "Fused" not in name:
            self.optimizers[name.partition("#")[2]].add(time_us)

    def hotspots(self) -> Iterator[Hotspot]:
        yield from self._host_hotspots()
        if self.batchnorms.count > SYNC_BATCHNORMS:
            yield self.batchnorms.hotspot(
                "sync-batchnorm",
                "SyncBatchNorm",
                "They wait for one another in each step: BatchNorm, where it does.",
            )
        if self.waits.count > SYNC_SHARE * max(1, self.launches):
            yield self.waits.hotspot(
                "blocking",
                "every launch",
                "After a launch the host waits for the stream: unset ASCEND_LAUNCH_BLOCKING.",
            )
        for name, total in self.memory.items():
            if total.time_us > MEMORY_US:
                yield total.hotspot("memory", name, _MEMORY[name])
        for name, total in self.optimizers.items():
            yield total.hotspot(
                "fused-optimizer",
                name,
                "One kernel for all parameters: fused=True, or torch_npu.optim.NpuFused….",
            )

    def _host_hotspots(self) -> Iterator[Hotspot]:
        if self.loads.count:
            yield self.loads.hotspot(
                "slow-loader",
                "DataLoader",
                "Batches that took over 10 ms: "
                "more num_workers, pin_memory=True, data on a faster disk, no archives.",
            )
        if self.collections.count:
            yield self.collections.hotspot(
                "garbage",
                "Python",
                "Garbage collections over "
                "1 ms stop the host: gc.freeze() after the start, gc.set_threshold().",
            )
