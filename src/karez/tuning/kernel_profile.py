"""Finds hotspots in kernel_details.csv: kernels by type, shape and sequence."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TextIO

from karez.tuning.hotspots import Hotspot, Total, number_of

DYNAMIC_SHARE, LAYOUT_SHARE, AXIS_SHARE = 0.1, 0.05, 0.05
"""Thresholds: share of all kernels by count, and twice of their time (karez)."""
CUBE_AXIS, ATTENTION_AXIS = 256, 128
"""Inner axes and head sizes should be multiples of these (advisor)."""
_SLOW_TYPES = ("DOUBLE", "COMPLEX64", "COMPLEX128", "INT64")
_LAYOUT = ("TransData", "Transpose")


def kernel_hotspots(file: TextIO) -> Iterator[Hotspot]:
    """The hotspots among all kernels but collectives."""
    totals = _KernelTotals()
    for row in csv.DictReader(file):
        totals.add(row)
    return totals.hotspots()


class _KernelTotals:
    """Sums over kernel_details.csv."""

    def __init__(self) -> None:
        self._all = Total()
        self._dynamic = Total()
        self._cpu: dict[str, Total] = defaultdict(Total)
        self._layout: dict[str, Total] = defaultdict(Total)
        self._axis: dict[str, Total] = defaultdict(Total)
        self._attention: dict[str, Total] = defaultdict(Total)
        self._written_out = Total()
        self._last: list[tuple[str, float]] = []
        """The last six kernels: type and time."""

    def add(self, row: Mapping[str, str]) -> None:
        kind, core = row["Type"] or "", row.get("Accelerator Core") or ""
        time_us = number_of(row["Duration(us)"])
        if core in ("HCCL", "COMMUNICATION") or kind.startswith("hcom_"):
            return
        self._all.add(time_us)
        if (row.get("OP State") or "").lower() == "dynamic":
            self._dynamic.add(time_us)
        if core == "AI_CPU":
            types = (row.get("Input Data Types") or "").replace("DT_", "").split(";")
            self._cpu[kind].add(time_us, ", ".join(sorted(set(types) & set(_SLOW_TYPES))))
        if kind.startswith(_LAYOUT):
            self._layout[kind].add(time_us)
        self._add_sizes(kind, row.get("Input Shapes") or "", time_us)
        self._add_sequence(kind, time_us)

    def _add_sizes(self, kind: str, shapes: str, time_us: float) -> None:
        inner = [_axes(shape) for shape in shapes.strip('"').split(";")]
        is_matrix = "MatMul" in kind and len(inner) > 1 and len(inner[0]) == len(inner[1]) == 2
        if is_matrix and any(axes[-1] % CUBE_AXIS for axes in inner[:2]):
            self._axis[kind].add(time_us, shapes.strip('"'))
        is_attention = kind.startswith("FlashAttention") and len(inner[0]) == 4
        if is_attention and inner[0][-1] % ATTENTION_AXIS:
            self._attention[kind].add(time_us, str(inner[0][-1]))

    def _add_sequence(self, kind: str, time_us: float) -> None:
        """Notice a matmul, a softmax and a matmul: attention written out."""
        self._last = [*self._last[-5:], (kind, time_us)]
        kinds = [kind for kind, _ in self._last]
        if "MatMul" in kind and any(name.startswith("Softmax") for name in kinds):
            at = max(n for n, name in enumerate(kinds) if name.startswith("Softmax"))
            before = [n for n, name in enumerate(kinds[:at]) if "MatMul" in name]
            if before:
                self._written_out.add(sum(time for _, time in self._last[before[-1] :]))
                self._last = []

    def hotspots(self) -> Iterator[Hotspot]:
        yield from self._cpu_hotspots()
        yield from self._layout_hotspots()
        yield from self._size_hotspots()
        if self._written_out.count:
            yield self._written_out.hotspot(
                "fused-attention",
                "matmul, softmax, matmul",
                "Attention written out: F.scaled_dot_product_attention, or npu_fusion_attention.",
                of_us=self._total_us,
            )

    @property
    def _total_us(self) -> float:
        return self._all.time_us or 1.0

    def _cpu_hotspots(self) -> Iterator[Hotspot]:
        for kind, total in self._cpu.items():
            types = f" Its inputs are {'; '.join(sorted(total.details))}." if total.details else ""
            yield total.hotspot(
                "ai-cpu",
                kind,
                "It ran on the AI CPU, not on the AI Core: float32 or int32 "
                f"inputs, or another operator.{types}",
                of_us=self._total_us,
            )

    def _layout_hotspots(self) -> Iterator[Hotspot]:
        if self._dynamic.count > DYNAMIC_SHARE * self._all.count:
            yield self._dynamic.hotspot(
                "dynamic-shape",
                "all kernels",
                "Their shapes change from call to call, so each call is planned again: pad or "
                "bucket inputs; torch_npu.npu.set_compile_mode(jit_compile=False).",
                source="karez",
                of_us=self._total_us,
            )
        for kind, total in self._layout.items():
            if total.time_us > LAYOUT_SHARE * self._total_us:
                yield total.hotspot(
                    "layout",
                    kind,
                    "Tensors are turned from one layout to another: no "
                    "channels_last, and npu_confusion_transpose for permute with reshape.",
                    source="karez",
                    of_us=self._total_us,
                )

    def _size_hotspots(self) -> Iterator[Hotspot]:
        for kind, total in self._axis.items():
            if total.time_us > AXIS_SHARE * self._total_us:
                yield total.hotspot(
                    "odd-size",
                    kind,
                    f"Inner axes should be multiples of {CUBE_AXIS}: "
                    f"{_listed(total.details)}. Pad the layers.",
                    of_us=self._total_us,
                )
        for kind, total in self._attention.items():
            yield total.hotspot(
                "odd-head",
                kind,
                f"Head sizes should be multiples of {ATTENTION_AXIS}: {_listed(total.details)}.",
                of_us=self._total_us,
            )


def _axes(shape: str) -> Sequence[int]:
    return [int(axis) for axis in shape.split(",") if axis.strip().isdigit()]


def _listed(values: Iterable[str], most: int = 4) -> str:
    ordered = sorted(values)
    return ", ".join(ordered[:most]) + (" …" if len(ordered) > most else "")
