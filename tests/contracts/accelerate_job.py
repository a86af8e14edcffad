"""Accelerate's own loop in a session: prepare, accumulate nothing, backward, step."""

import json
import os
from pathlib import Path

import torch
from accelerate import Accelerator

from karez import training


def main() -> None:
    steps = json.loads(os.environ["KAREZ_SETTINGS"])["steps"]
    with training.session(seed=3, hide_world=True) as run:
        accelerator = Accelerator(cpu=True)
        model = torch.nn.Sequential(
            torch.nn.Linear(8, 16), torch.nn.Dropout(), torch.nn.Linear(16, 1)
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        data = torch.utils.data.TensorDataset(torch.arange(320.0).reshape(40, 8) / 320)
        loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.9)
        model, optimizer, loader, scheduler = accelerator.prepare(
            model, optimizer, loader, scheduler
        )
        run.track(model=accelerator.unwrap_model(model), optimizer=optimizer, scheduler=scheduler)
        for (batch,) in run.steps(loader, total=steps):
            loss = (model(batch) - batch.mean(1, keepdim=True)).pow(2).mean()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            run.commit(loss=loss)
        if run.rank == 0:
            weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
            (Path(run.output("final")) / "weights.txt").write_text(
                " ".join(float(value).hex() for value in weights)
            )


if __name__ == "__main__":
    main()
