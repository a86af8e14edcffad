"""What a session refuses of a Lightning Trainer, and how it counts steps and batches."""

from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from karez import training
from karez.core.errors import BadRequest

pytestmark = [
    pytest.mark.story,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of Lightning about torch
]


def module_of(*, is_automatic: bool = True) -> Any:
    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = is_automatic
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss: torch.Tensor = self.layer(batch[0]).sum()
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Module()


def fit(module: Any, *, loader: Any = None, **how: Any) -> Any:
    from karez.runtime.lightning import KarezCallback, on_device

    data = torch.utils.data.TensorDataset(torch.arange(12.0).reshape(12, 1))
    with training.session(hide_world=True) as run:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
        chosen = {"max_epochs": 2, "strategy": on_device(run), **quiet, **how}
        trainer = pl.Trainer(callbacks=[KarezCallback(run)], **chosen)
        trainer.fit(module, loader or torch.utils.data.DataLoader(data, batch_size=3))
        return SimpleNamespace(steps=run.step, epochs=trainer.current_epoch)


@pytest.mark.parametrize(
    ("how", "steps"),
    [
        ({}, 8),
        ({"accumulate_grad_batches": 3}, 4),
        ({"max_steps": 5, "max_epochs": None}, 5),
        ({"limit_train_batches": 2}, 4),
    ],
)
def test_a_session_counts_the_steps_that_lightning_counts(how: dict[str, Any], steps: int) -> None:
    assert fit(module_of(), **how).steps == steps


def test_the_numbers_of_batches_leave_out_what_lightning_leaves_out() -> None:
    from karez.runtime.lightning import BatchNumbers

    trainer = SimpleNamespace(num_training_batches=5, accumulate_grad_batches=2)
    numbers = BatchNumbers(trainer, in_loader=9)
    found = [list(numbers.of(step)) for step in range(6)]
    assert found == [[0, 1], [2, 3], [4], [9, 10], [11, 12], [13]]


@pytest.mark.parametrize(
    ("module", "how", "problem"),
    [
        (module_of(is_automatic=False), {}, "automatic_optimization"),
        (module_of(), {"loader": iter([1])}, "has a length"),
        (module_of(), {"max_epochs": -1}, "no end"),
    ],
)
def test_what_a_session_cannot_keep_is_refused_with_what_to_do(
    module: Any, how: dict[str, Any], problem: str
) -> None:
    with pytest.raises(BadRequest, match=problem):
        fit(module, **how)
