"""What is tried with a tiny model on the emulated NPU. It is for a process that ends after it.

torch counts devices at the first backward of a process: the device must be registered before, and
what registered it once keeps it.
"""

from typing import Protocol

import torch

from karez.emulated_npu.autoload import install
from karez.studio.architectures.attempts import Failed, attempt
from karez.studio.architectures.checks import step
from karez.studio.architectures.rows import OK, Check
from karez.studio.architectures.tiny_model import SEED, TinyModel, main_output

_SAME = 1e-3


class Progress(Protocol):
    """Who is told what is done."""

    def begin(self, check: Check) -> None:
        """A check begins."""

    def end(self, check: Check, outcome: str) -> None:
        """A check has ended."""


def check_npu(tiny: TinyModel, tell: Progress) -> None:
    """Run forward, then a step of training, on the emulated NPU."""
    tell.begin(Check.NPU_FORWARD)
    outcome = attempt(lambda: _forward(tiny))
    if isinstance(outcome, Failed):
        tell.end(Check.NPU_FORWARD, outcome.reason)
        return
    tell.end(Check.NPU_FORWARD, outcome)
    tell.begin(Check.NPU_TRAIN)
    outcome = attempt(lambda: _train(tiny))
    tell.end(Check.NPU_TRAIN, outcome.reason if isinstance(outcome, Failed) else outcome)


@torch.no_grad()
def _forward(tiny: TinyModel) -> str:
    install()
    torch.manual_seed(SEED)
    expected = main_output(tiny.model(**tiny.inputs))
    tiny.model.to("npu")
    inputs = {name: value.to("npu") for name, value in tiny.inputs.items()}
    torch.manual_seed(SEED)
    got = main_output(tiny.model(**inputs)).cpu()
    gap = float((got - expected).abs().max())
    is_same = gap <= _SAME * max(float(expected.abs().max()), 1)
    return OK if is_same else f"outputs differ by {gap:.2g}"


def _train(tiny: TinyModel) -> str:
    model = tiny.model.train()
    loss = step(model, torch.optim.AdamW(model.parameters(), lr=1e-3), tiny)
    return OK if loss == loss else "the loss is no number"
