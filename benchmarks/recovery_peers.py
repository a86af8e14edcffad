"""Training of bench_recovery under torchrun elastic and Ray Train: a checkpoint every 20 steps.

Run as `torchrun ... recovery_peers.py FOLDER STEPS`, or through `ray_train(FOLDER, STEPS)`. Each
rank appends `step time pid` to FOLDER/rank-N after every step.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

EVERY = 20


def model() -> torch.nn.Module:
    """Make a model of 0.5 M parameters."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 256)
    )


def train(folder: Path, steps: int, rank: int) -> None:
    """Train data-parallel with checkpoints on the local disk."""
    net = model()
    parallel = torch.nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    saved, first = folder / "checkpoint.pt", 0
    if saved.exists():
        state = torch.load(saved)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    with (folder / f"rank-{rank}").open("a", buffering=1) as log:
        for step in range(first + 1, steps + 1):
            data = torch.ones(16, 256) * (step % 7)
            loss = ((parallel(data) - data) ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            time.sleep(0.02)
            log.write(f"{step} {time.time()} {os.getpid()}\n")
            if step % EVERY == 0 and rank == 0:
                fresh = folder / "fresh.pt"
                torch.save(
                    {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step},
                    fresh,
                )
                fresh.replace(saved)


def ray_train(folder: Path, steps: int) -> Callable[[], object]:
    """Make a Ray Train run; call the result in a separate process."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
    from ray.train.torch import TorchConfig, TorchTrainer

    def loop(config: dict[str, object]) -> None:
        torch.set_num_threads(1)
        train(
            Path(str(config["folder"])), int(str(config["steps"])), get_context().get_world_rank()
        )

    trainer = TorchTrainer(
        loop,
        train_loop_config={"folder": str(folder), "steps": steps},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=4),
        run_config=RunConfig(
            storage_path=str(folder / "ray"), failure_config=FailureConfig(max_failures=3)
        ),
    )
    fit: Callable[[], object] = trainer.fit
    return fit


def main() -> None:
    """Run as a rank of torchrun, or with `ray FOLDER STEPS` as the driver of Ray Train."""
    if sys.argv[1] == "ray":
        import ray

        sys.path.insert(0, str(Path(__file__).parent))
        os.environ["PYTHONPATH"] = str(Path(__file__).parent)
        ray.init(address="local", include_dashboard=False, num_cpus=5, log_to_driver=False)
        ray_train(Path(sys.argv[2]), int(sys.argv[3]))()
        return
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    train(Path(sys.argv[1]), int(sys.argv[2]), dist.get_rank())


if __name__ == "__main__":
    main()
