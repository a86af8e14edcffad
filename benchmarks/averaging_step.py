"""One rank of bench_averaging: the same training in a karez session, under DDP, or under torchft.

Run as `averaging_step.py MODE FOLDER WIDTH LAYERS BATCH STEPS [ACCUMULATE]`; a karez rank takes the
same from the job's settings. Rank 0 writes CPU and wall seconds of each step after WARM ones.
"""

import datetime
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

WARM = 24
"""Steps before the measured ones: caches, buckets and the cadence of snapshots settle."""


def network(width: int, layers: int) -> torch.nn.Module:
    """An MLP whose hidden layers are square."""
    torch.manual_seed(0)
    hidden = [torch.nn.Linear(width, width) for _ in range(layers)]
    parts = [part for layer in hidden for part in (layer, torch.nn.ReLU())]
    return torch.nn.Sequential(torch.nn.Linear(32, width), *parts, torch.nn.Linear(width, 1))


class Stopwatch:
    """CPU time of this process and wall time of each step."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float]] = []
        self._at = (time.process_time(), time.monotonic())

    def lap(self) -> None:
        """End a step."""
        now = (time.process_time(), time.monotonic())
        self.rows.append((now[0] - self._at[0], now[1] - self._at[1]))
        self._at = now

    def write(self, folder: Path, rank: int, loss: float) -> None:
        """Write the measured steps of this rank."""
        body = {"rows": self.rows[WARM:], "loss": loss}
        (folder / f"rank-{rank}.json").write_text(json.dumps(body))


def rows(batch: int, rank: int) -> torch.Tensor:
    """The rank's rows, the same at each step."""
    return torch.randn(batch, 32, generator=torch.Generator().manual_seed(rank))


def micro_steps(
    model: torch.nn.Module, x: torch.Tensor, parts: int, quiet: Any
) -> Iterator[torch.Tensor]:
    """Backward over the parts of a batch; gradients are averaged with the last one."""
    for number, part in enumerate(x.chunk(parts)):
        hush: AbstractContextManager[object] = quiet() if number < parts - 1 else nullcontext()
        with hush:
            loss = (model(part) - part.sin().mean(1, keepdim=True)).square().mean() / parts
            loss.backward()
        yield loss.detach()


def train_ddp(words: list[str]) -> None:
    """What a user would write: torchrun and DistributedDataParallel over gloo."""
    folder, (width, layers, batch, steps, parts) = Path(words[0]), map(int, words[1:])
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    model = torch.nn.parallel.DistributedDataParallel(network(width, layers))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, watch = rows(batch, rank), Stopwatch()
    loss = 0.0
    for _ in range(steps + WARM):
        loss = float(sum(micro_steps(model, x, parts, model.no_sync)))
        optimizer.step()
        optimizer.zero_grad()
        watch.lap()
    watch.write(folder, rank, loss)
    torch.distributed.destroy_process_group()


def train_karez() -> None:
    """The same in a session, which also keeps every step and survives faults."""
    from karez import training

    asked = json.loads(os.environ["KAREZ_SETTINGS"])
    with training.session(seed=0) as run:
        torch.set_num_threads(1)
        model = network(asked["width"], asked["layers"])
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        run.track(model=model, optimizer=optimizer)
        x, watch = rows(asked["batch"], run.rank), Stopwatch()
        loss = 0.0
        for _ in run.steps([0], total=asked["steps"] + WARM):
            loss = float(sum(micro_steps(model, x, asked["parts"], run.accumulating)))
            optimizer.step()
            optimizer.zero_grad()
            run.commit(loss=loss)
            watch.lap()
        watch.write(Path(asked["folder"]), run.rank, loss)


def train_torchft(words: list[str]) -> None:
    """The same under torchft: a replica group per rank, committed by a quorum."""
    from torchft import DistributedDataParallel, Manager, Optimizer, ProcessGroupGloo

    folder, (width, layers, batch, steps, _) = Path(words[0]), map(int, words[1:6])
    rank, port = int(words[6]), int(words[7])
    torch.set_num_threads(1)
    net = network(width, layers)
    inner = torch.optim.AdamW(net.parameters(), lr=1e-3)
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    manager = Manager(
        pg=ProcessGroupGloo(timeout=datetime.timedelta(seconds=20)),
        load_state_dict=lambda _: None,
        state_dict=lambda: {"net": net.state_dict(), "optimizer": inner.state_dict()},
        min_replica_size=2,
        replica_id=f"group-{rank}",
        rank=0,
        world_size=1,
        store_addr="127.0.0.1",
        store_port=store.port,
        lighthouse_addr=f"http://127.0.0.1:{port}",
    )
    model = DistributedDataParallel(manager, net)
    optimizer = Optimizer(manager, inner)
    x, watch = rows(batch, rank), Stopwatch()
    loss = 0.0
    for _ in range(steps + WARM):
        optimizer.zero_grad()
        loss = float(next(micro_steps(model, x, 1, nullcontext)))
        optimizer.step()
        watch.lap()
    watch.write(folder, rank, loss)
    manager.shutdown(wait=False)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        train_karez()
    elif sys.argv[1] == "ddp":
        train_ddp(sys.argv[2:])
    else:
        train_torchft(sys.argv[2:])
