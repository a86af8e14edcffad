"""What was slow, by a profile that torch_npu's profiler wrote: what, how much, and what to do.

Read are `kernel_details.csv`, `step_trace_time.csv`, `trace_view.json` and `communication.json` of
ASCEND_PROFILER_OUTPUT, as the user guide of Ascend/pytorch (9e73e708) describes them. Sources:
`advisor`: rules of msprof-analyze (8399c1cd) with their thresholds; `karez`: thresholds of our own.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, TextIO

from karez.core.errors import BadRequest

OUTPUT = "ASCEND_PROFILER_OUTPUT"
SHARE = 0.1
"""Of a step: idle or exposed time beyond it is worth a line (advisor)."""
DYNAMIC_SHARE, LAYOUT_SHARE, AXIS_SHARE = 0.1, 0.05, 0.05
"""Of all kernels, and of their time (karez)."""
LOADER_US, GC_US, MEMORY_US = 10_000.0, 1_000.0, 10_000.0
SYNC_BATCHNORMS, SYNC_SHARE = 20, 0.5
SMALL_MB, SMALL_SHARE, ALIGN_BYTES = {"SDMA": 16.0, "HCCS": 16.0, "RDMA": 1.0}, 0.2, 512
CUBE_AXIS, ATTENTION_AXIS = 256, 128
_SLOW = ("DOUBLE", "COMPLEX64", "COMPLEX128", "INT64")
_LAYOUT = ("TransData", "Transpose")
_MEMORY = {
    "AscendCL@aclMallocMemInner": "export PYTORCH_NPU_ALLOC_CONF=expandable_segments:True",
    "AscendCL@aclrtFreePhysical": "the memory is nearly full: a smaller batch, no empty_cache()",
    "AscendCL@aclrtFree": "the memory is nearly full: a smaller batch, no empty_cache()",
}
_CHUNK = 1 << 20
_BROKEN = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    OverflowError,
    csv.Error,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """One thing that took time."""

    rule: str
    what: str
    count: int
    time_us: float
    share: float
    """Of the time of all kernels, or of the steps; 0 where neither is its measure."""
    reason: str
    source: str


@dataclass(slots=True)
class _Sum:
    count: int = 0
    time_us: float = 0.0
    about: set[str] = field(default_factory=set)

    def add(self, time_us: float, about: str = "") -> None:
        self.count += 1
        self.time_us += time_us
        if about:
            self.about.add(about)


def look(folder: Path) -> list[Slow]:
    """What was slow, the longest first.

    Args:
        folder: What the profiler wrote, or ASCEND_PROFILER_OUTPUT in it.

    Raises:
        BadRequest: There is no profile, or it cannot be read.
    """
    outputs = [folder] if folder.name == OUTPUT else sorted(folder.glob(f"**/{OUTPUT}"))
    if not outputs and any((folder / name).is_file() for name in _READERS):
        outputs = [folder]
    if len(outputs) != 1:
        found = ", ".join(str(path.parent.name) for path in outputs) or "none"
        raise BadRequest(
            problem=f"{folder} should hold one profile; found: {found}",
            fix="Name one folder ending in _ascend_pt; an unparsed profile has to be analysed "
            "first: torch_npu.profiler.profiler.analyse(FOLDER).",
        )
    slow: list[Slow] = []
    seen = 0
    for name, reader in _READERS.items():
        path = outputs[0] / name
        if path.is_file():
            seen += 1
            try:
                with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
                    slow += reader(file)
            except _BROKEN as error:
                raise BadRequest(problem=f"{path} cannot be read: {error}") from error
    if not seen:
        raise BadRequest(
            problem=f"{outputs[0]} has none of {', '.join(_READERS)}",
            fix="Profile with activities of the NPU, and analyse the result.",
        )
    return sorted(slow, key=lambda one: -one.time_us)


def _kernels(file: TextIO) -> Iterator[Slow]:
    table = _Kernels()
    for row in csv.DictReader(file):
        table.add(row)
    return table.found()


class _Kernels:
    """Sums over kernel_details.csv."""

    def __init__(self) -> None:
        self._all = _Sum()
        self._dynamic = _Sum()
        self._cpu: dict[str, _Sum] = defaultdict(_Sum)
        self._layout: dict[str, _Sum] = defaultdict(_Sum)
        self._axis: dict[str, _Sum] = defaultdict(_Sum)
        self._attention: dict[str, _Sum] = defaultdict(_Sum)
        self._written_out = _Sum()
        self._last: list[tuple[str, float]] = []

    def add(self, row: Mapping[str, str]) -> None:
        kind, core = row["Type"] or "", row.get("Accelerator Core") or ""
        time_us = _number(row["Duration(us)"])
        if core in ("HCCL", "COMMUNICATION") or kind.startswith("hcom_"):
            return
        self._all.add(time_us)
        if (row.get("OP State") or "").lower() == "dynamic":
            self._dynamic.add(time_us)
        if core == "AI_CPU":
            types = (row.get("Input Data Types") or "").replace("DT_", "").split(";")
            self._cpu[kind].add(time_us, ", ".join(sorted(set(types) & set(_SLOW))))
        if kind.startswith(_LAYOUT):
            self._layout[kind].add(time_us)
        self._sizes(kind, row.get("Input Shapes") or "", time_us)
        self._sequence(kind, time_us)

    def _sizes(self, kind: str, shapes: str, time_us: float) -> None:
        inner = [_axes(shape) for shape in shapes.strip('"').split(";")]
        is_matrix = "MatMul" in kind and len(inner) > 1 and len(inner[0]) == len(inner[1]) == 2
        if is_matrix and any(axes[-1] % CUBE_AXIS for axes in inner[:2]):
            self._axis[kind].add(time_us, shapes.strip('"'))
        is_attention = kind.startswith("FlashAttention") and len(inner[0]) == 4
        if is_attention and inner[0][-1] % ATTENTION_AXIS:
            self._attention[kind].add(time_us, str(inner[0][-1]))

    def _sequence(self, kind: str, time_us: float) -> None:
        self._last = [*self._last[-5:], (kind, time_us)]
        kinds = [one for one, _ in self._last]
        if "MatMul" in kind and any(one.startswith("Softmax") for one in kinds):
            at = max(n for n, one in enumerate(kinds) if one.startswith("Softmax"))
            before = [n for n, one in enumerate(kinds[:at]) if "MatMul" in one]
            if before:
                self._written_out.add(sum(time for _, time in self._last[before[-1] :]))
                self._last = []

    def found(self) -> Iterator[Slow]:
        total = self._all.time_us or 1.0
        for kind, one in self._cpu.items():
            types = f" Its inputs are {'; '.join(sorted(one.about))}." if one.about else ""
            yield self._slow(
                "ai-cpu",
                kind,
                one,
                "It ran on the AI CPU, not on the AI Core: float32 or int32 "
                f"inputs, or another operator.{types}",
                "advisor",
            )
        if self._dynamic.count > DYNAMIC_SHARE * self._all.count:
            yield self._slow(
                "dynamic-shape",
                "all kernels",
                self._dynamic,
                "Their shapes change from call to call, so each is planned anew: pad or bucket "
                "inputs; torch_npu.npu.set_compile_mode(jit_compile=False).",
                "karez",
            )
        for kind, one in self._layout.items():
            if one.time_us > LAYOUT_SHARE * total:
                yield self._slow(
                    "layout",
                    kind,
                    one,
                    "Tensors are turned from one layout to another: no "
                    "channels_last, and npu_confusion_transpose for permute with reshape.",
                    "karez",
                )
        for kind, one in self._axis.items():
            if one.time_us > AXIS_SHARE * total:
                yield self._slow(
                    "odd-size",
                    kind,
                    one,
                    f"Inner axes that are no multiple of {CUBE_AXIS}: "
                    f"{_some(one.about)}. Pad the layers.",
                    "advisor",
                )
        for kind, one in self._attention.items():
            yield self._slow(
                "odd-head",
                kind,
                one,
                f"Head sizes that are no multiple of {ATTENTION_AXIS}: {_some(one.about)}.",
                "advisor",
            )
        if self._written_out.count:
            yield self._slow(
                "fused-attention",
                "matmul, softmax, matmul",
                self._written_out,
                "Attention written out: F.scaled_dot_product_attention, or npu_fusion_attention.",
                "advisor",
            )

    def _slow(self, rule: str, what: str, one: _Sum, reason: str, source: str) -> Slow:
        return Slow(
            rule=rule,
            what=what,
            count=one.count,
            time_us=one.time_us,
            share=one.time_us / (self._all.time_us or 1.0),
            reason=reason,
            source=source,
        )


def _steps(file: TextIO) -> Iterator[Slow]:
    rows = list(csv.DictReader(file))
    spent = {
        name: sum(_number(row[name]) for row in rows)
        for name in ("Computing", "Communication(Not Overlapped)", "Free")
    }
    total = sum(spent.values())
    reasons = {
        "Free": (
            "idle",
            "The device waits for the host: fewer and larger operators, no waits "
            "(.item(), .cpu()) in the loop, TASK_QUEUE_ENABLE=2, CPU_AFFINITY_CONF=1.",
        ),
        "Communication(Not Overlapped)": (
            "exposed-communication",
            "Communication that no computing hides: larger buckets, "
            "overlap (bucket_cap_mb, FSDP2's prefetch), accumulation over more batches.",
        ),
    }
    for name, (rule, reason) in reasons.items():
        if total and spent[name] > SHARE * total:
            yield Slow(
                rule=rule,
                what=name,
                count=len(rows),
                time_us=spent[name],
                share=spent[name] / total,
                reason=reason,
                source="advisor",
            )


def _trace(file: TextIO) -> Iterator[Slow]:
    loads, collections, batchnorms = _Sum(), _Sum(), _Sum()
    memory: dict[str, _Sum] = defaultdict(_Sum)
    optimizers: dict[str, _Sum] = defaultdict(_Sum)
    launches, waits, after = 0, _Sum(), False
    for event in events(file):
        name, time_us = str(event.get("name", "")), _number(event.get("dur"))
        if name.startswith("Node@launch"):
            launches, after = launches + 1, True
        elif name.startswith("AscendCL@aclrtSynchronizeStream"):
            if after:
                waits.add(time_us)
            after = False
        elif "dataloader" in name.lower() and time_us > LOADER_US:
            loads.add(time_us)
        elif name == "GC" and time_us > GC_US:
            collections.add(time_us)
        elif name.lower() == "syncbatchnorm":
            batchnorms.add(time_us)
        elif name in _MEMORY:
            memory[name].add(time_us)
        elif name.startswith("Optimizer.step#") and "Fused" not in name:
            optimizers[name.partition("#")[2]].add(time_us)
    found = [
        _told(
            "slow-loader",
            "DataLoader",
            loads,
            loads.count > 0,
            "Batches that took over 10 ms: "
            "more num_workers, pin_memory=True, data on a faster disk, no archives.",
        ),
        _told(
            "garbage",
            "Python",
            collections,
            collections.count > 0,
            "Garbage collections over "
            "1 ms stop the host: gc.freeze() after the start, gc.set_threshold().",
        ),
        _told(
            "sync-batchnorm",
            "SyncBatchNorm",
            batchnorms,
            batchnorms.count > SYNC_BATCHNORMS,
            "They wait for one another in each step: BatchNorm, where it does.",
        ),
        _told(
            "blocking",
            "every launch",
            waits,
            waits.count > SYNC_SHARE * max(1, launches),
            "After a launch the host waits for the stream: unset ASCEND_LAUNCH_BLOCKING.",
        ),
    ]
    found += [
        _told("memory", name, one, one.time_us > MEMORY_US, _MEMORY[name])
        for name, one in memory.items()
    ]
    found += [
        _told(
            "fused-optimizer",
            name,
            one,
            is_worth=True,
            reason="One kernel for all parameters: fused=True, or torch_npu.optim.NpuFused….",
        )
        for name, one in optimizers.items()
    ]
    return (one for one in found if one is not None)


def _packets(table: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Of each collective: its link, size in MB and time in us."""
    for step in table.values():
        for group in step.values():
            for name, one in group.items():
                links = one.get("Communication Bandwidth Info", {})
                for link, info in links.items() if name != "Total Op Info" else ():
                    size_mb = _number(info.get("Transit Size(MB)"))
                    if link in SMALL_MB and size_mb:
                        yield link, size_mb, 1000 * _number(info.get("Transit Time(ms)"))


def _communication(file: TextIO) -> Iterator[Slow]:
    packets: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    small: dict[str, _Sum] = defaultdict(_Sum)
    odd = _Sum()
    for link, size_mb, time_us in _packets(json.load(file)):
        packets[link][0] += 1
        if size_mb < SMALL_MB[link]:
            packets[link][1] += 1
            small[link].add(time_us)
        if round(size_mb * 1_000_000) % ALIGN_BYTES and link != "RDMA":
            odd.add(time_us)
    for link, (count, few) in packets.items():
        if few > SMALL_SHARE * count:
            yield Slow(
                rule="small-packets",
                what=link,
                count=few,
                time_us=small[link].time_us,
                share=few / count,
                source="advisor",
                reason=f"Under {SMALL_MB[link]:.0f} MB each: larger buckets or batches, "
                "accumulation; ZeRO-1 or 2 instead of 3 where memory allows.",
            )
    if odd.count:
        yield Slow(
            rule="odd-packets",
            what="sizes",
            count=odd.count,
            time_us=odd.time_us,
            share=0.0,
            reason=f"Sizes that are no multiple of {ALIGN_BYTES} bytes: pad what is reduced.",
            source="advisor",
        )


_READERS: Mapping[str, Callable[[TextIO], Iterable[Slow]]] = {
    "kernel_details.csv": _kernels,
    "step_trace_time.csv": _steps,
    "trace_view.json": _trace,
    "communication.json": _communication,
}


def events(file: TextIO) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list, one at a time: a trace may be larger than memory.

    Raises ValueError where it is no list of objects.
    """
    decoder = json.JSONDecoder()
    text, at = file.read(_CHUNK).lstrip(), 1
    if not text.startswith("["):
        raise ValueError("it is no list of events")
    while True:
        while at < len(text) and text[at] in " ,\r\n\t":
            at += 1
        if at < len(text) and text[at] == "]":
            return
        try:
            event, at = decoder.raw_decode(text, at)
        except ValueError:
            more = file.read(_CHUNK)
            if not more:
                raise
            text, at = text[at:] + more, 0
            continue
        if isinstance(event, dict):
            yield event
        if at > _CHUNK:
            text, at = text[at:], 0


def _told(rule: str, what: str, one: _Sum, is_worth: bool, reason: str) -> Slow | None:
    if not is_worth:
        return None
    return Slow(
        rule=rule,
        what=what,
        count=one.count,
        time_us=one.time_us,
        share=0.0,
        reason=reason,
        source="advisor",
    )


def _axes(shape: str) -> Sequence[int]:
    return [int(axis) for axis in shape.split(",") if axis.strip().isdigit()]


def _some(values: Iterable[str], most: int = 4) -> str:
    ordered = sorted(values)
    return ", ".join(ordered[:most]) + (" …" if len(ordered) > most else "")


def _number(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        return 0.0
    return number if isfinite(number) else 0.0
