"""Training of bench_recovery in a karez session: no checkpoint, a commit at each step."""

import json
import os
import sys
import time
from pathlib import Path

import torch

from karez import training


def main() -> None:
    """Train with folder and steps from the job's settings."""
    settings = json.loads(os.environ["KAREZ_SETTINGS"])
    sys.path.insert(0, str(settings["here"]))
    from recovery_peers import model

    with training.session() as run:
        net = model()
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        run.track(model=net, optimizer=optimizer)
        path = Path(settings["folder"]) / f"rank-{run.rank}"
        with path.open("a", buffering=1) as log:
            for step in run.steps(range(1, settings["steps"] + 1), total=settings["steps"]):
                data = torch.ones(16, 256) * (step % 7)
                loss = ((net(data) - data) ** 2).mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                time.sleep(0.02)
                run.commit(loss=loss)
                log.write(f"{run.step} {time.time()} {os.getpid()}\n")


if __name__ == "__main__":
    main()
