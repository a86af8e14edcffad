"""A training job in which rank 0 has seen enough at some step: it stops all, or leaves alone."""

import json
import os
import sys
import time
from pathlib import Path

import torch

from karez import training


def main() -> None:
    settings = json.loads(os.environ["KAREZ_SETTINGS"])
    with training.session(seed=3, snapshot_every=int(settings["every"])) as run:
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        run.track(model=model, optimizer=optimizer)
        rows = [torch.full((8, 4), number / 10) for number in range(10)]
        for batch in run.steps(rows, total=50):
            if run.rank == 0 and run.step == 9 and settings["how"] == "stop":
                run.stop()
            model(batch).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            run.commit(loss=0.5)
            if run.rank == 0 and run.step == 10 and settings["how"] == "leave":
                break
            time.sleep(settings["pause_s"])
        sys.stdout.write(f"rank {run.rank} ends after {run.step}\n")
        if run.rank == 0:
            weights = [float(value).hex() for p in model.parameters() for value in p.reshape(-1)]
            (Path(run.output("final")) / "weights.txt").write_text(" ".join(weights))


if __name__ == "__main__":
    main()
