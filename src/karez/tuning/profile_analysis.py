"""Finds hotspots in a profile that torch_npu's profiler wrote, with advice for each.

It reads `kernel_details.csv`, `step_trace_time.csv`, `trace_view.json` and `communication.json` of
ASCEND_PROFILER_OUTPUT, as the user guide of Ascend/pytorch (9e73e708) describes them. Sources of
the rules: `advisor`: msprof-analyze (8399c1cd) with its thresholds; `karez`: thresholds of karez.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from karez.core.errors import BadRequest
from karez.tuning.communication_profile import communication_hotspots
from karez.tuning.hotspots import Hotspot, number_of
from karez.tuning.kernel_profile import kernel_hotspots
from karez.tuning.trace_profile import trace_hotspots

OUTPUT = "ASCEND_PROFILER_OUTPUT"
SHARE = 0.1
"""Share of a step from which on idle or exposed time is reported (advisor)."""
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
_STEP_RULES = {
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


def look(folder: Path) -> list[Hotspot]:
    """Find the hotspots of a profile, the longest first.

    Args:
        folder: The profiler's folder, or ASCEND_PROFILER_OUTPUT in it.

    Raises:
        BadRequest: There is no profile, or it cannot be read.
    """
    output = _output_folder(folder)
    paths = [output / name for name in _READERS if (output / name).is_file()]
    if not paths:
        raise BadRequest(
            problem=f"{output} has none of {', '.join(_READERS)}",
            fix="Profile with activities of the NPU, and analyse the result.",
        )
    hotspots = [hotspot for path in paths for hotspot in _read(path)]
    return sorted(hotspots, key=lambda hotspot: -hotspot.time_us)


def _output_folder(folder: Path) -> Path:
    outputs = [folder] if folder.name == OUTPUT else sorted(folder.glob(f"**/{OUTPUT}"))
    if not outputs and any((folder / name).is_file() for name in _READERS):
        outputs = [folder]
    if len(outputs) != 1:
        names = ", ".join(str(path.parent.name) for path in outputs) or "none"
        raise BadRequest(
            problem=f"{folder} should hold one profile; found: {names}",
            fix="Name one folder ending in _ascend_pt; an unparsed profile has to be analysed "
            "first: torch_npu.profiler.profiler.analyse(FOLDER).",
        )
    return outputs[0]


def _read(path: Path) -> list[Hotspot]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            return list(_READERS[path.name](file))
    except _BROKEN as error:
        raise BadRequest(problem=f"{path} cannot be read: {error}") from error


def _step_hotspots(file: TextIO) -> Iterator[Hotspot]:
    """Idle and exposed time, from step_trace_time.csv."""
    rows = list(csv.DictReader(file))
    spent = {
        name: sum(number_of(row[name]) for row in rows)
        for name in ("Computing", "Communication(Not Overlapped)", "Free")
    }
    total = sum(spent.values())
    for name, (rule, reason) in _STEP_RULES.items():
        if total and spent[name] > SHARE * total:
            yield Hotspot(
                rule=rule,
                what=name,
                count=len(rows),
                time_us=spent[name],
                share=spent[name] / total,
                reason=reason,
                source="advisor",
            )


_READERS: Mapping[str, Callable[[TextIO], Iterable[Hotspot]]] = {
    "kernel_details.csv": kernel_hotspots,
    "step_trace_time.csv": _step_hotspots,
    "trace_view.json": trace_hotspots,
    "communication.json": communication_hotspots,
}
