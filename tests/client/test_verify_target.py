"""Which target a run on the pool has: an emulated NPU never passes for a real one."""

from dataclasses import dataclass
from typing import Any

import pytest

from karez.core.devices import EMULATED, Device, DeviceKind
from karez.core.errors import BadRequest
from karez.core.nodes import Node, NodeId
from karez.experiments.remote_verify import target_on


@dataclass
class PoolOf:
    """A client that knows a pool and nothing else."""

    models: tuple[str, ...]

    def pool(self) -> list[Node]:
        return [
            Node(
                id=NodeId(f"n{number}"),
                address="",
                devices=(Device(kind=DeviceKind.NPU, index=0, model=model),),
            )
            for number, model in enumerate(self.models)
        ]


@pytest.mark.parametrize(
    ("models", "need", "target"),
    [
        ((EMULATED, EMULATED), "npu:1", "emulated"),
        ((EMULATED, "910B"), "npu:1", "npu"),
        ((), "npu:1", "npu"),
        ((EMULATED,), "gpu:1", "cuda"),
        ((EMULATED,), "cpu:1", "emulated"),
    ],
)
def test_npus_of_a_pool_without_real_ones_are_emulated(
    models: tuple[str, ...], need: str, target: str
) -> None:
    client: Any = PoolOf(models)
    assert target_on(client, need) == target


def test_a_request_that_names_no_devices_is_refused() -> None:
    client: Any = PoolOf(())
    with pytest.raises(BadRequest):
        target_on(client, "tpu:1")
