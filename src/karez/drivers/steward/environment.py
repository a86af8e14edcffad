"""Environment of a process: its identity, its folders, its devices."""

from pathlib import Path

from karez.core import environment
from karez.core.grants import Grant
from karez.core.processes import ProcessSpec


def process_env(spec: ProcessSpec, folder: Path) -> dict[str, str]:
    """Variables that follow from a process's spec; the spec's own variables override them."""
    return {
        environment.KEY_NAME: spec.key,
        environment.JOB: spec.workload,
        environment.EPOCH: str(spec.epoch),
        environment.INPUTS: str(folder / "inputs"),
        environment.OUT: str(folder / "out"),
        environment.RESTORE: str(folder / "restore"),
        environment.CODE: str(folder / "code"),
        "PYTHONUNBUFFERED": "1",
        **_visible(spec),
        **spec.env,
    }


def cores_of(grant: Grant | None) -> list[int]:
    """The cores that a process is pinned to; empty means all."""
    if grant is None:
        return []
    held = grant.devices if grant.kind == "cpu" else grant.cores
    return [index for index, _ in held]


def _visible(spec: ProcessSpec) -> dict[str, str]:
    """Variables that limit a process to its accelerators. Empty, not absent, hides them all."""
    indices = "" if spec.grant is None else ",".join(str(i) for i in spec.grant.indices)
    kind = "" if spec.grant is None else spec.grant.kind.value
    return {
        "CUDA_VISIBLE_DEVICES": indices if kind == "gpu" else "",
        "ASCEND_RT_VISIBLE_DEVICES": indices if kind == "npu" else "",
        "OMP_NUM_THREADS": str(max(1, len(cores_of(spec.grant)))),
        environment.DEVICE: kind or "cpu",
    }
