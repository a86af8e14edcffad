"""A training job on a device that may fail: the first process of rank 1 loses its device."""

import json
import os
from pathlib import Path

import torch

from karez import training
from karez.emulated_npu.operators import LIMITS
from karez.runtime.loader import ShuffledBatches
from tests.contracts.weights import keep_weights


def main() -> None:
    settings = json.loads(os.environ["KAREZ_SETTINGS"])
    is_first = os.environ["KAREZ_KEY_NAME"].endswith(".1.1")
    with training.session(seed=1, snapshot_every=1) as run:
        model = torch.nn.Sequential(
            torch.nn.Linear(8, 16), torch.nn.Dropout(), torch.nn.Linear(16, 1)
        )
        model.to(run.device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        run.track(model=model, optimizer=optimizer)
        rows = list(torch.randn(64, 8, generator=torch.Generator().manual_seed(2)))
        loader = ShuffledBatches(dataset=rows, global_batch=8, seed=3, collate=torch.stack)
        for step, batch in enumerate(run.steps(loader, total=settings["steps"])):
            if is_first and step == settings.get("lose_at"):
                LIMITS.is_lost = True
            batch = batch.to(run.device)
            loss = (model(batch) - batch.sum(1, keepdim=True)).pow(2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.commit(loss=loss)
            if run.rank == 0:
                Path(os.environ["KAREZ_CHECKPOINT_DIR"], "step").write_text(str(run.step))
        keep_weights(run, model)


if __name__ == "__main__":
    main()
