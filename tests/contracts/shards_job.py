"""A training job whose state is split over its ranks, and whose result does not depend on how many
there are: no dropout, the same global batch, gradients that are means."""

import json
import os
import threading
from pathlib import Path

import torch
from torch import nn

from karez import training
from karez.runtime.loader import ShuffledBatches
from karez.runtime.shards import ShardedOptimizer

LR, MOMENTUM = 0.05, 0.9


def network() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(17, 23), nn.Tanh(), nn.Linear(23, 1))


def split(device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network().to(device)
    fully_shard(model, mesh=init_device_mesh(device.type, (torch.distributed.get_world_size(),)))
    return model, torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)


def main() -> None:
    settings = json.loads(os.environ["KAREZ_SETTINGS"])
    pause = threading.Event()
    with training.session(seed=1) as run:
        if settings["fsdp"]:
            run.build(lambda run: split(run.device))
        else:
            model = network().to(run.device)
            optimizer = ShardedOptimizer(
                model.parameters(), torch.optim.SGD, lr=LR, momentum=MOMENTUM
            )
            run.track(model=model, optimizer=optimizer)
        rows = list(torch.randn(96, 17, generator=torch.Generator().manual_seed(2)))
        loader = ShuffledBatches(dataset=rows, global_batch=12, seed=3, collate=torch.stack)
        for batch in run.steps(loader, total=settings["steps"]):
            with run.trying():
                batch = batch.to(run.device)
                loss = ((run.model(batch) - batch.sin().sum(1, keepdim=True)) ** 2).mean()
                loss.backward()
                pause.wait(settings["work"] / 1000)
                run.optimizer.step()
                run.optimizer.zero_grad()
                run.commit(loss=loss)
        parts = [p.detach() for p in run.model.parameters()]
        whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in parts]
        if run.rank == 0:
            text = " ".join(str(float(value)) for p in whole for value in p.reshape(-1))
            (Path(run.output("final")) / "weights.txt").write_text(text)


if __name__ == "__main__":
    main()
