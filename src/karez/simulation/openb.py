"""Reads nodes and workers in the columns of Alibaba's openb trace (cluster-trace-gpu-v2023)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from karez.core.errors import BadRequest
from karez.core.units import MILLI
from karez.scheduling.placement.inventory import ANY_MODEL, Inventory, Row, Shape
from karez.simulation.tables import Line, read_table

MIB = 1 << 20
MOST_DEVICES = 64
"""Largest number of accelerators in one node: the masks of the arrays have 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRequest:
    """One worker of a trace."""

    devices: int
    milli: int
    cpu_milli: int
    memory_bytes: int
    models: tuple[str, ...] = ()

    def shape(self, inventory: Inventory) -> Shape:
        """The request as the arrays of an inventory hold it."""
        return Shape(
            devices=self.devices,
            milli=self.milli,
            models=inventory.models_mask(self.models) if self.models else ANY_MODEL,
            bulk=(self.cpu_milli, self.memory_bytes, 0, 0),
        )


def read_nodes(lines: Iterable[str], file: str) -> Sequence[Row]:
    """Read nodes from columns `sn, cpu_milli, memory_mib, gpu, model`. Raises BadRequest."""
    rows: list[Row] = []
    seen: set[str] = set()
    for line in read_table(lines, file, ("sn", "cpu_milli", "memory_mib", "gpu", "model")):
        name = line.text("sn")
        if not name or name in seen:
            raise line.problem("sn", f"{name!r} is missing or is there twice")
        seen.add(name)
        count = line.whole("gpu", high=MOST_DEVICES)
        bulk = (line.whole("cpu_milli"), line.whole("memory_mib") * MIB, 0, 0)
        rows.append(Row(name=name, devices=((line.text("model"), MILLI),) * count, bulk=bulk))
    if not rows:
        raise BadRequest(problem=f"the file {file} holds no node")
    return sorted(rows, key=lambda row: row.name)


def read_pods(lines: Iterable[str], file: str) -> Sequence[PodRequest]:
    """Read workers from columns `cpu_milli, memory_mib, num_gpu, gpu_milli` and `gpu_spec`, if any.

    Raises:
        BadRequest: A cell is out of bounds, or a share of several devices is asked for.
    """
    needed = ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
    asked = [_asked(line) for line in read_table(lines, file, needed)]
    if not asked:
        raise BadRequest(problem=f"the file {file} holds no worker")
    return asked


def _asked(line: Line) -> PodRequest:
    count = line.whole("num_gpu", high=MOST_DEVICES)
    milli = line.whole("gpu_milli", low=1 if count else 0, high=MILLI) if count else MILLI
    if count > 1 and milli < MILLI:
        raise line.problem("gpu_milli", f"a share of {count} devices; only one can be shared")
    return PodRequest(
        devices=count,
        milli=milli,
        cpu_milli=line.whole("cpu_milli"),
        memory_bytes=line.whole("memory_mib") * MIB,
        models=tuple(name for name in line.text("gpu_spec").split("|") if name),
    )
