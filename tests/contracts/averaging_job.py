"""Ways in which people average: micro-batches, a model in DDP, unused parameters, checkpointing."""

import json
import os

import torch
import torch.distributed as dist
from torch.utils.checkpoint import checkpoint

from karez import training
from karez.runtime.loader import ShuffledBatches
from tests.contracts.weights import keep_weights


class Net(torch.nn.Module):
    """Two blocks of one weight, one of them recomputed, and a head that some steps leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = torch.nn.Linear(32, 32)
        self.heads = torch.nn.ModuleList([torch.nn.Linear(32, 1), torch.nn.Linear(32, 1)])

    def block(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(self.shared(x).relu(), 0.1, self.training)

    def forward(self, x: torch.Tensor, head: int) -> torch.Tensor:
        x = checkpoint(self.block, self.block(x), use_reentrant=bool(head))
        made: torch.Tensor = self.heads[head](x)
        return made


def main() -> None:
    settings = json.loads(os.environ["KAREZ_SETTINGS"])
    with training.session(seed=1, snapshot_every=settings.get("every", 0)) as run:
        model: torch.nn.Module = Net()
        if settings.get("ddp"):
            dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
            model = torch.nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        torch.manual_seed(100 + run.rank)
        run.track(model=model, optimizer=optimizer)
        rows = [torch.full((32,), index / 100.0) for index in range(100)]
        loader = ShuffledBatches(dataset=rows, global_batch=16, seed=3, collate=torch.stack)
        for batch in run.steps(loader, total=settings["steps"]):
            total = 0.0
            parts = batch.chunk(2)
            for part in parts[:-1]:
                with run.accumulating():
                    loss = model(part, run.step % 2).square().mean() / len(parts)
                    loss.backward()
                total += float(loss)
            loss = (model(parts[-1], run.step % 2) - 1).square().mean() / len(parts)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.commit(loss=total + float(loss))
        keep_weights(run, model)


if __name__ == "__main__":
    main()
