"""A small GPT on four ranks, data parallel by two and tensor parallel by two, that survives kills.

karez jobs submit --kind train --workers 4 --each cpu=0.5 --code examples -- python parallel_gpt.py

Rank 2d + t computes half t of every layer for the rows of group d. Each rank keeps its own shard of
parameters and moments, so a killed rank is replaced in place, and the losses stay the same.
"""

import json
import os

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention

from karez import training
from karez.runtime.loader import ShuffledBatches, StepLoader

DATA, TENSOR = 2, 2
"""Ranks along the two dimensions of the mesh."""
WORDS, WIDTH, HEADS, LAYERS, LENGTH = 64, 32, 4, 2, 24


class Block(nn.Module):
    """Attention and an MLP; both halves of a layer's heads and units may be on different ranks."""

    def __init__(self) -> None:
        """Make the layers whole; `parallel` splits them."""
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """Shapes: B rows, L positions, D units; this rank has its own part of the heads."""
        normal = self.before(x_BLD)
        q, k, v = (
            layer(normal).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        seen = scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BLD = x_BLD + self.out(seen.transpose(1, 2).flatten(2))
        made: torch.Tensor = x_BLD + self.down(gelu(self.up(self.between(x_BLD))))
        return made


class Gpt(nn.Module):
    """Embeddings, blocks, and a head of its own."""

    def __init__(self) -> None:
        """Make the whole model; `parallel` splits it."""
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        """Logits of the next token at each position. Shapes: (B, L, WORDS)."""
        x_BLD = self.words(tokens_BL) + self.places.weight[: tokens_BL.shape[1]]
        for block in self.blocks:
            x_BLD = block(x_BLD)
        made: torch.Tensor = self.head(x_BLD)
        return made


def parallel(device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Split the model over the mesh; called once in each generation, within its process group."""
    mesh = init_device_mesh(device.type, (DATA, TENSOR), mesh_dim_names=("data", "tensor"))
    torch.manual_seed(0)
    model = Gpt().to(device)
    plan = {
        **dict.fromkeys(("query", "key", "value", "up"), ColwiseParallel()),
        **dict.fromkeys(("out", "down"), RowwiseParallel()),
    }
    for block in model.blocks:
        parallelize_module(block, mesh["tensor"], plan)
        fully_shard(block, mesh=mesh["data"])
    fully_shard(model, mesh=mesh["data"])
    return model, torch.optim.AdamW(model.parameters(), lr=3e-3)


class ByGroup(StepLoader):
    """Gives the ranks of one tensor-parallel group the same rows."""

    def __init__(self, rows: StepLoader) -> None:
        """Split the batches of a loader over the data-parallel groups."""
        self.rows = rows

    def at(self, step: int, rank: int, world: int) -> torch.Tensor:
        """Rows of this rank's group."""
        batch: torch.Tensor = self.rows.at(step, rank // TENSOR, world // TENSOR)
        return batch


def main() -> None:
    """Learn to count in steps of one to four."""
    steps = int(json.loads(os.environ.get("KAREZ_SETTINGS", "{}")).get("steps", 200))
    with training.session(seed=1) as run:
        run.build(lambda run: parallel(run.device))
        starts = [(first, step) for first in range(WORDS) for step in range(1, 5)]
        rows = [(torch.arange(LENGTH + 1) * step + first) % WORDS for first, step in starts]
        loader = ShuffledBatches(dataset=rows, global_batch=16, seed=0, collate=torch.stack)
        for batch in run.steps(ByGroup(loader), total=steps):
            with run.trying():
                batch = batch.to(run.device)
                logits = run.model(batch[:, :-1])
                loss = cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
                loss.backward()
                run.optimizer.step()
                run.optimizer.zero_grad()
                run.commit(loss=loss)
        # every rank takes part in putting the shards together
        whole = {name: value.full_tensor().cpu() for name, value in run.model.state_dict().items()}
        if run.rank == 0:
            torch.save(whole, run.output("model") / "weights.pt")
            total = torch.cat([value.reshape(-1) for value in whole.values()])
            text = " ".join(float(value).hex() for value in total)
            (run.output("final") / "weights.txt").write_text(text)


if __name__ == "__main__":
    main()
