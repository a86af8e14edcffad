"""A PyTorch Lightning Trainer in a session: epochs, micro-batches, validation, early stopping."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from karez import training
from karez.runtime.lightning import KarezCallback, on_device
from tests.contracts.weights import keep_weights

Rows = Sequence[torch.Tensor]


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, 16),
            torch.nn.BatchNorm1d(16),  # its means differ from rank to rank, and so does val_loss
            torch.nn.ReLU(),
            torch.nn.Dropout(),
            torch.nn.Linear(16, 1),
        )

    def _loss(self, batch: Rows) -> torch.Tensor:
        rows, wanted = batch
        return (self.layers(rows) - wanted).pow(2).mean()

    def training_step(self, batch: Rows, batch_idx: int) -> torch.Tensor:
        return self._loss(batch)

    def validation_step(self, batch: Rows, batch_idx: int) -> None:
        self.log("val_loss", self._loss(batch))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.7)]


def rows(count: int, first: int) -> torch.utils.data.TensorDataset:
    data = torch.randn(count, 6, generator=torch.Generator().manual_seed(first))
    return torch.utils.data.TensorDataset(data, data.sum(1, keepdim=True))


def main() -> None:
    settings = json.loads(os.environ["KAREZ_SETTINGS"])
    with training.session(seed=4, hide_world=True, snapshot_every=settings.get("every", 0)) as run:
        kept = ModelCheckpoint(dirpath=os.environ["KAREZ_CHECKPOINT_DIR"], monitor="val_loss")
        stopping = EarlyStopping("val_loss", patience=2, min_delta=settings.get("delta", 0.0))
        trainer = pl.Trainer(
            max_epochs=settings["epochs"],
            accumulate_grad_batches=2,
            gradient_clip_val=1.0,
            callbacks=[KarezCallback(run), stopping, kept],
            strategy=on_device(run),
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module = Module()
        trainer.fit(
            module,
            torch.utils.data.DataLoader(rows(72, 0), batch_size=8, shuffle=True),
            torch.utils.data.DataLoader(rows(32, 1), batch_size=16),
        )
        if run.rank == 0:
            where = next(module.parameters()).device
            said = f"stopped in epoch {trainer.current_epoch} after {run.step} steps on {where}"
            sys.stdout.write(f"{said}, best {Path(kept.best_model_path).name}\n")
        keep_weights(run, module)


if __name__ == "__main__":
    main()
