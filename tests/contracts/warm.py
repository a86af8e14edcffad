"""What a fork server of these tests has imported: all that a rank here needs, and no more."""

import importlib

for _name in (
    "torch._dynamo",
    "torch.distributed.device_mesh",
    "torch.distributed.fsdp",
    "karez.studio.recipes.chaos_workload",
    "karez.runtime.session",
):
    importlib.import_module(_name)
