"""Training of bench_recovery under torchft: four replica groups of one rank, state from a peer.

Run as `recovery_torchft.py lighthouse PORT`, and `recovery_torchft.py rank FOLDER STEPS RANK PORT`
for each rank. torchft restarts nothing itself: `rank` restarts its worker whenever the worker dies.
Like the others, a worker appends `step time pid` to FOLDER/rank-N after every step.
"""

import datetime
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from recovery_peers import model


def serve(port: int) -> None:
    """Run the lighthouse, with limits short enough for a fast recovery."""
    from torchft.coordination import LighthouseServer

    _ = LighthouseServer(
        bind=f"127.0.0.1:{port}",
        min_replicas=1,
        join_timeout_ms=100,
        quorum_tick_ms=50,
        heartbeat_timeout_ms=500,
    )
    threading.Event().wait()


def keep_alive(words: list[str]) -> None:
    """Restart a worker as soon as it fails, as a launcher would."""
    while subprocess.run([sys.executable, __file__, "work", *words], check=False).returncode:
        pass


def work(folder: Path, steps: int, rank: int, port: int) -> None:
    """Train; a step counts when all live groups commit it."""
    from torchft import DistributedDataParallel, Manager, Optimizer, ProcessGroupGloo

    torch.set_num_threads(1)
    net = model()
    inner = torch.optim.AdamW(net.parameters(), lr=1e-3)

    def load(state: dict[str, dict[str, object]]) -> None:
        net.load_state_dict(state["net"])
        inner.load_state_dict(state["optimizer"])

    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    manager = Manager(
        pg=ProcessGroupGloo(timeout=datetime.timedelta(seconds=5)),
        load_state_dict=load,
        state_dict=lambda: {"net": net.state_dict(), "optimizer": inner.state_dict()},
        min_replica_size=1,
        replica_id=f"group-{rank}",
        rank=0,
        world_size=1,
        store_addr="127.0.0.1",
        store_port=store.port,
        lighthouse_addr=f"http://127.0.0.1:{port}",
        timeout=datetime.timedelta(seconds=5),
        hostname="127.0.0.1",
    )
    parallel = DistributedDataParallel(manager, net)
    optimizer = Optimizer(manager, inner)
    with (folder / f"rank-{rank}").open("a", buffering=1) as log:
        while (step := manager.current_step() + 1) <= steps:
            data = torch.ones(16, 256) * (step % 7)
            optimizer.zero_grad()
            ((parallel(data) - data) ** 2).mean().backward()
            optimizer.step()
            time.sleep(0.02)
            if manager.current_step() >= step:
                log.write(f"{manager.current_step()} {time.time()} {os.getpid()}\n")


if __name__ == "__main__":
    if sys.argv[1] == "lighthouse":
        serve(int(sys.argv[2]))
    elif sys.argv[1] == "rank":
        keep_alive(sys.argv[2:])
    else:
        work(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
