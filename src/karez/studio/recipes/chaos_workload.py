"""Recipe: a small network whose every step can be compared bit for bit with a calm run's."""

import hashlib
import threading
from typing import Any

import torch
from torch import nn

from karez import training
from karez.runtime.device import show_device
from karez.runtime.loader import ShuffledBatches
from karez.runtime.shards import ShardedOptimizer
from karez.studio.recipes.recipe_io import settings_of, write_card
from karez.studio.settings import ChaosWorkload

INPUTS = 32


def main() -> None:
    """Train, then write down the digest of the final weights."""
    settings = settings_of(ChaosWorkload)
    with training.session(seed=settings.seed, snapshot_every=settings.snapshot_every) as run:
        if settings.mode == "fsdp":
            run.build(lambda run: _sharded_model(settings, run.device))
        else:
            model = _network(settings.width).to(run.device)
            run.track(model=model, optimizer=_optimizer(model, settings.mode))
        torch.manual_seed(1000 * settings.seed + run.rank) if run.step == 0 else None
        pause = threading.Event()
        for batch in run.steps(_rows(settings), total=settings.steps):
            with run.trying():
                batch = batch.to(run.device)
                wanted = batch.sin().mean(1, keepdim=True)
                loss = ((run.model(batch) - wanted) ** 2).mean()
                loss.backward()
                if settings.pause_ms:
                    pause.wait(settings.pause_ms / 1000)
                run.optimizer.step()
                run.optimizer.zero_grad()
                run.commit(loss=loss)
        _write_digest(run)


def _network(width: int) -> nn.Sequential:
    """Two hidden layers with dropout, so that the random generators count."""
    half = width // 2
    return nn.Sequential(
        nn.Linear(INPUTS, width),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, half),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(half, 1),
    )


def _optimizer(model: nn.Module, mode: str) -> torch.optim.Optimizer:
    if mode == "sharded":
        return ShardedOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-3)
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def _sharded_model(
    settings: ChaosWorkload, device: torch.device
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """FSDP2 over all ranks; built again with each process group."""
    from torch.distributed import device_mesh, fsdp  # noqa: PLC0415 - only here

    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = _network(settings.width).to(device)
    mesh = device_mesh.init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in model:
        if isinstance(layer, nn.Linear):
            fsdp.fully_shard(layer, mesh=mesh)
    fsdp.fully_shard(model, mesh=mesh)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def _rows(settings: ChaosWorkload) -> ShuffledBatches:
    generator = torch.Generator().manual_seed(settings.seed)
    rows = torch.randn(512, INPUTS, generator=generator)
    return ShuffledBatches(
        dataset=list(rows), global_batch=settings.batch, seed=settings.seed, collate=torch.stack
    )


def _write_digest(run: Any) -> None:
    """Of the whole weights; with shards, all ranks take part in putting them together."""
    digest = hashlib.sha256()
    for parameter in run.model.parameters():
        value = parameter.detach()
        whole = value.full_tensor() if hasattr(value, "full_tensor") else value
        digest.update(whole.cpu().contiguous().numpy().tobytes())
    if run.rank == 0:
        folder = run.output("weights")
        (folder / "sha256.txt").write_text(digest.hexdigest() + "\n")
        facts = {"weights_sha256": digest.hexdigest(), "device": show_device(run.device)}
        write_card(folder, kind="report", facts=facts)
