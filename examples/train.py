"""A training script that survives lost ranks: kill any rank, and the losses stay the same.

karez jobs submit --kind train --workers 2 --code examples -- python train.py
"""

import torch

from karez import training
from karez.runtime.loader import ShuffledBatches


def main() -> None:
    """Fit a small network to the sum of its inputs."""
    with training.session(seed=1) as run:
        model = torch.nn.Sequential(
            torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        run.track(model=model, optimizer=optimizer)
        rows = list(torch.randn(1000, 16))
        loader = ShuffledBatches(dataset=rows, global_batch=32, seed=0, collate=torch.stack)
        for batch in run.steps(loader, total=500):
            loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.commit(loss=loss)
        if run.rank == 0:
            torch.save(model.state_dict(), run.output("model") / "weights.pt")


if __name__ == "__main__":
    main()
