"""Accelerate's own loop in a session: prepare, accumulate, backward, clip, step."""

import json
import os
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin

from karez import training
from tests.contracts.weights import keep_weights

EACH = 3
"""Micro-batches of a step."""


def main() -> None:
    steps = json.loads(os.environ["KAREZ_SETTINGS"])["steps"]
    with training.session(seed=3, hide_world=True) as run:
        accumulation = GradientAccumulationPlugin(num_steps=EACH, sync_with_dataloader=False)
        accelerator = Accelerator(
            cpu=run.device.type == "cpu", gradient_accumulation_plugin=accumulation
        )
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
        for batches in run.steps(training.micro_batches(loader, EACH), total=steps):
            losses = []
            for number, (batch,) in enumerate(batches, 1):
                with accelerator.accumulate(model):
                    loss = (model(batch) - batch.mean(1, keepdim=True)).pow(2).mean()
                    with nullcontext() if number == EACH else run.accumulating():
                        accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
                losses.append(float(loss.detach()))
            run.commit(loss=sum(losses) / EACH)
        keep_weights(run, model)


if __name__ == "__main__":
    main()
