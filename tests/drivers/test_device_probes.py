"""Devices as the vendors' tools tell of them, by recorded and documented answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from karez.core.devices import Device, DeviceKind
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.processes import ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.links import linked_groups, parse_npu_topology
from karez.drivers.nvidia import _nvlink_pairs, read_devices
from karez.drivers.steward.environment import process_env


class NVMLError(Exception):
    """What NVML raises where something is not there, as nvidia-ml-py does."""


@dataclass
class DocumentedNvml:
    """NVML as its reference describes it: GPUs, of which some are divided into MIG instances."""

    gpus: Sequence[Sequence[str]]
    """Per GPU the names of the MIG instances in its slots; an empty name is an empty slot."""
    links: frozenset[tuple[int, int]] = frozenset()
    NVMLError: type[Exception] = NVMLError
    NVML_P2P_CAPS_INDEX_NVLINK: int = 2
    NVML_P2P_STATUS_OK: int = 0
    knows_mig: bool = True
    asked: list[str] = field(default_factory=list)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> tuple[int, ...]:
        return (index,)

    def nvmlDeviceGetMigMode(self, gpu: tuple[int, ...]) -> tuple[int, int]:
        if not self.knows_mig:
            raise NVMLError
        return (int(bool(self.gpus[gpu[0]])),) * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: tuple[int, ...]) -> int:
        return len(self.gpus[gpu[0]])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: tuple[int], slot: int) -> Any:
        if not self.gpus[gpu[0]][slot]:
            raise NVMLError
        return (*gpu, slot)

    def nvmlDeviceGetUUID(self, handle: tuple[int, ...]) -> str:
        return ("MIG-" if len(handle) > 1 else "GPU-") + "".join(map(str, handle))

    def nvmlDeviceGetName(self, handle: tuple[int, ...]) -> str:
        part = f" MIG {self.gpus[handle[0]][handle[1]]}" if len(handle) > 1 else ""
        return f"NVIDIA H100 80GB HBM3{part}"

    def nvmlDeviceGetMemoryInfo(self, handle: tuple[int, ...]) -> Any:
        return SimpleNamespace(total=(10 if len(handle) > 1 else 80) << 30)

    def nvmlDeviceGetP2PStatus(self, one: Any, other: Any, what: int) -> int:
        assert what == self.NVML_P2P_CAPS_INDEX_NVLINK
        pair = (min(one[0], other[0]), max(one[0], other[0]))
        return 0 if pair in self.links else 3


def test_a_divided_gpu_offers_its_instances_by_their_uuids() -> None:
    nvml = DocumentedNvml([[], ["1g.10gb", "", "2g.20gb"], []])
    found = list(read_devices(nvml, "all"))
    assert [(d.index, d.visible_as, d.memory_bytes >> 30) for d in found] == [
        (0, "", 80),
        (1, "MIG-10", 10),
        (2, "MIG-12", 10),
        (3, "2", 80),  # the third GPU to CUDA too, which counts no instances
    ]
    assert found[2].model.endswith("MIG 2g.20gb")


def test_a_gpu_without_mig_is_offered_whole() -> None:
    nvml = DocumentedNvml([[]], knows_mig=False)
    assert [d.visible_as for d in read_devices(nvml, "all")] == [""]


@pytest.mark.parametrize(
    ("allowed", "count"),
    [("all", 3), ("0,1", 3), ("void", 3), ("GPU-1", 2), ("MIG-11,GPU-0", 2)],
)
def test_what_a_device_plugin_allows_is_offered_and_no_more(allowed: str, count: int) -> None:
    nvml = DocumentedNvml([[], ["1g.10gb", "1g.10gb"]])
    assert len(list(read_devices(nvml, allowed))) == count


def test_a_process_is_limited_to_its_instance_and_cuda_counts_as_nvml_does(tmp_path: Path) -> None:
    devices = list(read_devices(DocumentedNvml([[], ["1g.10gb"]]), "all"))
    grant = Grant(node=NodeId("a"), kind=DeviceKind.GPU, devices=((0, 1000), (1, 1000)))
    spec = ProcessSpec(
        key="k", workload=WorkloadId("w"), rank=0, epoch=1, command=("x",), grant=grant
    )
    made = process_env(spec, tmp_path, tmp_path, devices)
    assert made["CUDA_VISIBLE_DEVICES"] == "0,MIG-10"
    assert made["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    npu = Device(kind=DeviceKind.NPU, index=0, visible_as="another kind's")
    assert process_env(spec, tmp_path, tmp_path, [npu])["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_links_become_groups() -> None:
    nvml = DocumentedNvml([[]] * 5, links=frozenset({(0, 1), (1, 2), (3, 4)}))
    assert linked_groups(5, _nvlink_pairs(nvml)) == "0-2,3-4"
    assert linked_groups(4, [(0, 2), (3, 1)]) == "0+2,1+3"
    assert linked_groups(4, []) == ""


TOPOLOGY = """
\tNPU0       NPU1       NPU2       NPU3       CPU Affinity
NPU0       X          HCCS       PHB        PHB        144-167
NPU1       HCCS       X          PHB        PHB        144-167
NPU2       PHB        PHB        X          HCCS       0-23
NPU3       PHB        PHB        HCCS       X          0-23

Legend:

  X    = Self
  HCCS = Connection traversing HCCS.
  PHB  = Path traversing PCIe and the PCIe host bridge of a CPU.
"""


def test_the_topology_of_npus_is_read() -> None:
    """The layout of `npu-smi info -t topo`, with made-up affinities."""
    assert parse_npu_topology(TOPOLOGY) == "0-1,2-3"
    assert parse_npu_topology("") == ""
