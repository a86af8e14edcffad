"""Training of bench_steady: blocks with and without snapshots, in turn; writes their times."""

import json
import os
import time
from pathlib import Path

import torch

from karez import training
from karez.runtime.shards import ShardedOptimizer
from karez.runtime.training_state import pack, size_of


def main() -> None:
    """Train with folder, width, mode and blocks from the job's settings."""
    settings = json.loads(os.environ["KAREZ_SETTINGS"])
    width, block, mode = settings["width"], settings["block"], settings["mode"]
    with training.session(seed=1, snapshot_every=1) as run:
        model = torch.nn.Sequential(
            torch.nn.Linear(32, width),
            torch.nn.ReLU(),
            *(torch.nn.Linear(width, width) for _ in range(2 if width < 1000 else 3)),
            torch.nn.Linear(width, 1),
        )
        optimizer: torch.optim.Optimizer
        if mode == "sharded":
            optimizer = ShardedOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-3)
        else:
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        run.track(model=model, optimizer=optimizer)
        state, blocks = run._runtime.state, []
        snapshots = state.snapshots
        began, wall, kept = time.process_time(), time.monotonic(), True
        batch = torch.ones(settings["batch"], 32)
        for _ in run.steps([0], total=block * settings["blocks"]):
            loss = (model(batch) ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.commit(loss=loss)
            if run.step % block == 0:
                now, wall_now = time.process_time(), time.monotonic()
                assert state.tracked is not None
                size = size_of(pack(state.tracked).parts)
                blocks.append(
                    {"kept": kept, "cpu_s": now - began, "wall_s": wall_now - wall, "bytes": size}
                )
                kept = not kept
                state.snapshots = snapshots if kept else None
                state.compares_replicas = kept
                began, wall = time.process_time(), time.monotonic()
        state.snapshots = snapshots
        (Path(settings["folder"]) / f"rank-{run.rank}").write_text(json.dumps(blocks))


if __name__ == "__main__":
    main()
