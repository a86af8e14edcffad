"""What a fork server of these tests has imported: all that a rank here needs, and no more."""

import importlib
import os

from karez.runtime import preload
from tests.on_device import refuse_host_tensors

for _name in (
    "torch._dynamo",
    "torch.distributed.device_mesh",
    "torch.distributed.fsdp",
    "karez.studio.recipes.chaos_workload",
    "karez.runtime.session",
):
    importlib.import_module(_name)


def after_fork() -> None:
    """As in a node's own preload; and a rank that was granted an NPU computes on nothing else."""
    preload.after_fork()
    if os.environ["KAREZ_DEVICE"] == "npu":
        refuse_host_tensors("npu")
