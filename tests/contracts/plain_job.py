"""A script for torchrun: DistributedDataParallel, and checkpoints that rank 0 writes by itself."""

import faulthandler
import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

EVERY = 5


def main() -> None:
    faulthandler.dump_traceback_later(60, exit=True)  # a hang says where
    settings = json.loads(os.environ["KAREZ_SETTINGS"])
    folder = Path(os.environ["KAREZ_CHECKPOINT_DIR"])
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    dist.init_process_group({"cpu": "gloo", "npu": "hccl"}[device.type])
    torch.manual_seed(7)
    model = torch.nn.Linear(8, 1).to(device)
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    first, newest = 0, folder / "newest.pt"
    if newest.exists():
        state = torch.load(newest, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        say(f"resumed from {first}")
    for step in range(first + 1, settings["steps"] + 1):
        seeded = torch.Generator().manual_seed(1000 * step + dist.get_rank())
        rows = torch.randn(4, 8, generator=seeded).to(device)
        loss = (wrapped(rows) - rows.sum(1, keepdim=True)).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if dist.get_rank() == 0 and step % EVERY == 0:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
            }
            torch.save(state, folder / "partial")
            (folder / "partial").replace(newest)
        say(f"step {step} on {rows.device}")
        time.sleep(settings.get("pause_ms", 0) / 1000)
    dist.barrier()
    dist.destroy_process_group()
    if int(os.environ["RANK"]) == 0:
        final = Path(os.environ["KAREZ_OUT"], "final")
        final.mkdir(exist_ok=True)
        weights = torch.cat([p.detach().reshape(-1).cpu() for p in model.parameters()])
        (final / "weights.txt").write_text(" ".join(float(w).hex() for w in weights))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
