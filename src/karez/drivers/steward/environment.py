"""Environment of a process: its identity, its folders, its devices."""

from collections.abc import Sequence
from pathlib import Path

from karez.core import environment
from karez.core.devices import Device, DeviceKind
from karez.core.grants import Grant
from karez.core.processes import ProcessSpec
from karez.core.units import MILLI


def process_env(
    spec: ProcessSpec, folder: Path, inputs: Path, devices: Sequence[Device] = ()
) -> dict[str, str]:
    """Variables that follow from a process's spec; the spec's own variables override them.

    `devices` are the GPUs and NPUs of this node.
    """
    return {
        environment.KEY_NAME: spec.key,
        environment.JOB: spec.workload,
        environment.EPOCH: str(spec.epoch),
        environment.INPUTS: str(inputs),
        environment.OUT: str(folder / "out"),
        environment.RESTORE: str(folder / "restore"),
        environment.CODE: str(folder / "code"),
        "PYTHONUNBUFFERED": "1",
        **_visible(spec.grant, devices),
        **_emulation(spec.grant, devices),
        **spec.env,
    }


def cores_of(grant: Grant | None) -> list[int]:
    """The cores that a process is pinned to; empty means all."""
    if grant is None:
        return []
    held = grant.devices if grant.kind == "cpu" else grant.cores
    return [index for index, _ in held]


def _visible(grant: Grant | None, devices: Sequence[Device]) -> dict[str, str]:
    """Variables that limit a process to its accelerators. Empty, not absent, hides them all."""
    kind = "" if grant is None else grant.kind.value
    names = {d.index: d.visible_as for d in devices if d.kind == kind and d.visible_as}
    granted = () if grant is None else grant.indices
    indices = ",".join(names.get(index, str(index)) for index in granted)
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # else CUDA counts the fastest first, and NVML does not
        "CUDA_VISIBLE_DEVICES": indices if kind == "gpu" else "",
        "ASCEND_RT_VISIBLE_DEVICES": indices if kind == "npu" else "",
        "OMP_NUM_THREADS": str(max(1, len(cores_of(grant)))),
        environment.DEVICE: kind or "cpu",
        environment.DEVICE_MILLI: str(_share_of(grant)),
    }


def _share_of(grant: Grant | None) -> int:
    """Thousandths of each granted device."""
    return min((milli for _, milli in grant.devices), default=MILLI) if grant else MILLI


def _emulation(grant: Grant | None, devices: Sequence[Device]) -> dict[str, str]:
    """Variables that give a process the emulated devices that it was granted."""
    emulated = [device for device in devices if device.is_emulated]
    if grant is None or grant.kind != DeviceKind.NPU or not emulated:
        return {}
    return {
        environment.EMUNPU: "1",
        environment.EMUNPU_MEMORY: str(emulated[0].memory_bytes),
        environment.EMUNPU_RANDOM: "own",
    }
