"""What a nursery of these tests has imported: all that a rank here needs, and no more."""

from torch.distributed.device_mesh import init_device_mesh  # noqa: F401 - as below
from torch.distributed.fsdp import fully_shard  # noqa: F401 - as below

import karez.studio.recipes.proving_ground
import karez.training.worker.session  # noqa: F401 - for those who fork from here
