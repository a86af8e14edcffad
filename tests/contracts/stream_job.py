"""Loaders with workers, shuffling and random augmentation; a bad batch where asked for."""

import json
import os
from pathlib import Path

import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from karez import training
from tests.contracts.weights import keep_weights


class Noisy(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, by_index: bool) -> None:
        self.by_index = by_index

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> torch.Tensor:
        own = torch.Generator().manual_seed(index) if self.by_index else None
        return torch.full((8,), index / 40) + 0.1 * torch.rand(8, generator=own)


def main() -> None:
    settings = json.loads(os.environ["KAREZ_SETTINGS"])
    with training.session(seed=5, spike=settings.get("spike", 0.0), snapshot_every=1) as run:
        model = torch.nn.Linear(8, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.9)
        run.track(model=model, optimizer=optimizer, scheduler=scheduler)
        is_stateful = bool(settings.get("stateful"))
        kind = StatefulDataLoader if is_stateful else torch.utils.data.DataLoader
        loader = kind(
            Noisy(is_stateful), batch_size=4, shuffle=True, num_workers=settings.get("loaders", 0)
        )
        seen = Path(run.output("seen")) / f"rank-{run.rank}.txt"
        for batch in run.steps(loader, total=settings["steps"]):
            with seen.open("a") as file:
                file.write(f"{run.step + 1} {float(batch.sum()).hex()}\n")
            for _ in range(settings["work"]):
                torch.mm(torch.ones(200, 200), torch.ones(200, 200))
            loss = (model(batch) - batch.mean(1, keepdim=True)).pow(2).mean()
            if settings.get("bad") and abs(float(batch.sum()) - settings["bad"]) < 1e-9:
                loss = loss * (1e4 if settings.get("spike") else float("nan"))
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            run.commit(loss=loss)
        keep_weights(run, model)


if __name__ == "__main__":
    main()
