"""What is tried with a tiny model on the emulated NPU. It is for a process that ends after it.

torch counts devices at the first backward of a process: the device must be registered before, and
what registered it once keeps it.
"""

from typing import Protocol

import torch

from karez.emulated_npu.autoload import install
from karez.studio.architectures.checks import step
from karez.studio.architectures.rows import OK, Check
from karez.studio.architectures.tiny_model import SEED, TinyModel, main_output, reason

_SAME = 1e-3


class Progress(Protocol):
    """Who is told what is done."""

    def begin(self, check: Check) -> None:
        """A check begins."""

    def end(self, check: Check, outcome: str) -> None:
        """A check has ended."""


def check_npu(tiny: TinyModel, tell: Progress) -> None:
    """Run forward, then a step of training, on the emulated NPU."""
    check = Check.NPU_FORWARD
    tell.begin(check)
    try:
        install()
        model = tiny.model
        with torch.no_grad():
            torch.manual_seed(SEED)
            expected = main_output(model(**tiny.inputs))
            model.to("npu")
            inputs = {name: value.to("npu") for name, value in tiny.inputs.items()}
            torch.manual_seed(SEED)
            got = main_output(model(**inputs)).cpu()
        gap = float((got - expected).abs().max())
        is_same = gap <= _SAME * max(float(expected.abs().max()), 1)
        tell.end(check, OK if is_same else f"outputs differ by {gap:.2g}")
        check = Check.NPU_TRAIN
        tell.begin(check)
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        loss = step(model, optimizer, tiny)
        tell.end(check, OK if loss == loss else "the loss is no number")
    except Exception as error:  # noqa: BLE001 - of hundreds of classes: any kind
        tell.end(check, reason(error))
