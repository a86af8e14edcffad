"""A small training job for the recovery tests: a network with dropout, two ranks or more."""

import json
import os
import signal
import time
from pathlib import Path

import torch

from karez import training
from karez.runtime.loader import ShuffledBatches


def main() -> None:
    settings = json.loads(os.environ["KAREZ_SETTINGS"])
    is_mortal = os.environ["KAREZ_KEY_NAME"].endswith(".1.1")
    with training.session(seed=1, snapshot_every=1) as run:
        model = torch.nn.Sequential(
            torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(64, 1)
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        run.track(model=model, optimizer=optimizer)
        if run.step == 0:
            torch.manual_seed(100 + run.rank)  # dropout differs from rank to rank
        rows = [torch.full((32,), index / 100.0) for index in range(100)]
        loader = ShuffledBatches(dataset=rows, global_batch=8, seed=3, collate=torch.stack)
        for batch in run.steps(loader, total=settings["steps"]):
            for _ in range(settings["work"]):
                torch.mm(torch.ones(200, 200), torch.ones(200, 200))
            loss = ((model(batch) - batch.mean(1, keepdim=True)) ** 2).mean()
            loss.backward()
            optimizer.step()
            if is_mortal and run.step == settings.get("die_at"):
                os.kill(os.getpid(), signal.SIGKILL)
            optimizer.zero_grad()
            run.commit(loss=loss)
            while run.step == settings.get("gate_at") and not Path(settings["gate"]).exists():
                time.sleep(0.01)
        if run.rank == 0:
            weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
            (Path(run.output("final")) / "weights.txt").write_text(
                " ".join(float(value).hex() for value in weights)
            )


if __name__ == "__main__":
    main()
