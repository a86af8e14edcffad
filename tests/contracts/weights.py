"""What the first rank of a test's job leaves: its weights, so that two runs can be compared."""

import torch

from karez.training import Run


def keep_weights(run: Run, model: torch.nn.Module) -> None:
    """Write a model's parameters bit for bit, as the output `final`."""
    if run.rank == 0:
        weights = torch.cat([p.detach().reshape(-1).cpu() for p in model.parameters()])
        text = " ".join(float(value).hex() for value in weights)
        (run.output("final") / "weights.txt").write_text(text)
