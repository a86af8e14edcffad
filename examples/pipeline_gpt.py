"""A small GPT in two stages of a pipeline, each data parallel over the ranks, that survives kills.

karez jobs submit --kind train --workers 4 --each cpu=0.5 --code examples -- python pipeline_gpt.py

Rank 2d + s computes stage s for the rows of group d. With two workers there is one group. A killed
rank is replaced in place with its own stage's parameters and moments.
"""

import json
import os
from typing import Any

import torch
import torch.distributed as dist
from parallel_gpt import LENGTH, WIDTH, WORDS, Block, ByGroup
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.nn.functional import cross_entropy

from karez import training
from karez.runtime.loader import ShuffledBatches

STAGES, MICRO_BATCHES = 2, 4


class First(nn.Module):
    """Embeddings and the first block."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.block = Block()

    def forward(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        """Shapes: B rows, L positions; what goes to the next stage is (B, L, WIDTH)."""
        made: torch.Tensor = self.block(self.words(tokens_BL) + self.places.weight)
        return made


class Last(nn.Module):
    """The second block and the head."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.block, self.head = Block(), nn.Linear(WIDTH, WORDS)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """Logits of the next token at each position. Shapes: (B, L, WORDS)."""
        made: torch.Tensor = self.head(self.block(x_BLD))
        return made


class Pipeline:
    """This rank's stage, and the schedule of its micro-batches, in one generation."""

    def __init__(self, device: torch.device) -> None:
        """Build the stage within the process group."""
        groups = dist.get_world_size() // STAGES
        mesh = init_device_mesh(device.type, (groups, STAGES), mesh_dim_names=("data", "stage"))
        self.group, self.stage = mesh["stage"].get_group(), mesh["stage"].get_local_rank()
        self.is_last = self.stage == STAGES - 1
        torch.manual_seed(self.stage)
        self.model: nn.Module = (Last() if self.is_last else First()).to(device)
        if groups > 1:
            fully_shard(self.model, mesh=mesh["data"])
        part = PipelineStage(self.model, self.stage, STAGES, device, group=self.group)
        self.schedule = Schedule1F1B(part, MICRO_BATCHES, loss_fn=_loss)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3)

    def step(self, rows_BL: torch.Tensor) -> torch.Tensor:
        """Run forward and backward of all micro-batches; returns the loss, which all stages get."""
        losses: list[torch.Tensor] = []
        if self.is_last:
            self.schedule.step(target=rows_BL[:, 1:], losses=losses)
        else:
            self.schedule.step(rows_BL[:, :-1])
        loss = (
            torch.stack(losses).mean().detach()
            if losses
            else rows_BL.new_zeros((), dtype=torch.float32)
        )
        dist.broadcast(loss, group=self.group, group_src=STAGES - 1)
        return loss


def _loss(logits_BLW: torch.Tensor, wanted_BL: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits_BLW.flatten(0, 1), wanted_BL.flatten())


def main() -> None:
    """Learn to count in steps of one to four."""
    steps = int(json.loads(os.environ.get("KAREZ_SETTINGS", "{}")).get("steps", 200))
    pipeline: Any = None

    def build(run: training.Run) -> tuple[nn.Module, torch.optim.Optimizer]:
        nonlocal pipeline
        pipeline = Pipeline(run.device)
        return pipeline.model, pipeline.optimizer

    with training.session(seed=1) as run:
        run.build(build)
        starts = [(first, step) for first in range(WORDS) for step in range(1, 5)]
        rows = [(torch.arange(LENGTH + 1) * step + first) % WORDS for first, step in starts]
        loader = ShuffledBatches(dataset=rows, global_batch=16, seed=0, collate=torch.stack)
        for batch in run.steps(ByGroup(loader), total=steps):
            with run.trying():
                loss = pipeline.step(batch.to(run.device))
                run.optimizer.step()
                run.optimizer.zero_grad()
                run.commit(loss=loss)
        parts = [
            p.full_tensor() if hasattr(p, "full_tensor") else p for p in run.model.parameters()
        ]
        whole = torch.cat([part.detach().reshape(-1).cpu() for part in parts])
        if run.rank == 0:
            text = " ".join(float(value).hex() for value in whole)
            (run.output("final") / "weights.txt").write_text(text)


if __name__ == "__main__":
    main()
