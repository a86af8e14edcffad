"""Faults put into single operators and modules of small models: is the right one named?

Run under KAREZ_EMUNPU=1; prints JSON. The reference is the CPU in the same process.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from karez.emulated_npu import operators
from karez.equivalence.compare import compare
from karez.equivalence.record import Record
from karez.equivalence.recording_hooks import Recorder
from karez.equivalence.verdict import Verdict

SHARE = 1e-3


class Mixer(nn.Module):
    """Attention written out, so that each part is a module."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.soft = nn.LayerNorm(16), nn.Linear(16, 48), nn.Softmax(-1)
        self.out, self.drop = nn.Linear(16, 16), nn.Dropout(0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        return x + self.drop(self.out(self.soft(q @ k.mT / 4) @ v))


class Last(nn.Module):
    def forward(self, x: tuple[torch.Tensor, Any]) -> torch.Tensor:
        return x[0][:, -1]


def models() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    torch.manual_seed(0)
    return {
        "mlp": (
            nn.Sequential(
                nn.Linear(8, 16),
                nn.Tanh(),
                nn.Linear(16, 16),
                nn.GELU(),
                nn.Linear(16, 16),
                nn.SiLU(),
                nn.Linear(16, 16),
                nn.Softplus(),
                nn.Linear(16, 16),
                nn.ELU(),
                nn.Linear(16, 4),
            ),
            torch.randn(12, 8),
        ),
        "cnn": (
            nn.Sequential(
                nn.Conv2d(3, 8, 3),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(8, 8, 3),
                nn.LeakyReLU(0.1),
                nn.AvgPool2d(2),
                nn.Flatten(),
                nn.Linear(32, 4),
            ),
            torch.randn(4, 3, 14, 14),
        ),
        "mixer": (
            nn.Sequential(
                nn.Embedding(20, 16),
                Mixer(),
                nn.LayerNorm(16),
                nn.Linear(16, 32),
                nn.Hardtanh(),
                nn.Linear(32, 16),
                Mixer(),
                nn.Sigmoid(),
                nn.Linear(16, 4),
            ),
            torch.randint(0, 20, (3, 6)),
        ),
        "lstm": (
            nn.Sequential(
                nn.Embedding(20, 8),
                nn.LSTM(8, 12, batch_first=True),
                Last(),
                nn.Linear(12, 12),
                nn.Hardswish(),
                nn.Linear(12, 4),
            ),
            torch.randint(0, 20, (3, 5)),
        ),
    }


FORWARD = {
    "mlp": {
        "aten::addmm": "0",
        "aten::tanh": "1",
        "aten::gelu": "3",
        "aten::silu": "5",
        "aten::softplus": "7",
        "aten::elu": "9",
    },
    "cnn": {
        "aten::convolution": "0",
        "aten::relu": "2",
        "aten::max_pool2d_with_indices": "3",
        "aten::leaky_relu": "5",
        "aten::avg_pool2d": "6",
        "aten::addmm": "8",
    },
    "mixer": {
        "aten::_softmax": "1.soft",
        "aten::hardtanh": "4",
        "aten::sigmoid": "7",
        "aten::index_select": "0",
    },
    "lstm": {"aten::index_select": "0", "aten::tanh": "1", "aten::hardswish": "4"},
}
BACKWARD = {
    "mlp": {
        "aten::tanh_backward": "1",
        "aten::gelu_backward": "3",
        "aten::softplus_backward": "7",
        "aten::elu_backward": "9",
    },
    "cnn": {
        "aten::threshold_backward": "2",
        "aten::max_pool2d_with_indices_backward": "3",
        "aten::leaky_relu_backward": "5",
        "aten::avg_pool2d_backward": "6",
        "aten::convolution_backward": "4",
    },
    "mixer": {
        "aten::_softmax_backward_data": "6.soft",
        "aten::hardtanh_backward": "4",
        "aten::sigmoid_backward": "7",
    },
    "lstm": {"aten::hardswish_backward": "4"},
}
"""Operator -> the first module in the order of the pass that uses it."""


def run(name: str, device: str, fault: tuple[str, float] = ("", 0.0), threads: int = 1) -> Record:
    """Two steps of training, recorded."""
    torch.set_num_threads(threads)
    model, x = models()[name]
    recorder = Recorder(folder=Path(), steps=2, fault=fault)
    model, x = model.to(device), x.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder.install()
    try:
        for _ in range(2):
            model(x).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    finally:
        recorder.remove()
    return Record(rows=recorder.rows, samples=recorder.samples, losses=recorder.losses, about={})


def named(verdict: Verdict) -> str:
    return "" if verdict.first is None else f"{verdict.first.kind} {verdict.first.name}"


def main() -> None:
    found: list[dict[str, Any]] = []
    for name, (model, _) in models().items():
        reference, again = run(name, "cpu"), run(name, "cpu", threads=2)

        def judge(
            what: str,
            want: str,
            *,
            name: str = name,
            reference: Record = reference,
            again: Record = again,
            fault: tuple[str, float] = ("", 0.0),
        ) -> None:
            verdict = compare(reference, run(name, "npu", fault), again)
            found.append(
                {
                    "model": name,
                    "what": what,
                    "want": want,
                    "got": named(verdict),
                    "lossless": verdict.is_lossless,
                }
            )

        for number in range(15):
            judge(f"clean {number}", "")
        for module, part in model.named_modules():
            if module and not list(part.children()) and not isinstance(part, nn.LSTM):
                judge(f"module {module}", f"forward {module}", fault=(module, SHARE))
        for kind, table in (("forward", FORWARD), ("backward", BACKWARD)):
            for operator, module in table[name].items():
                operators.LIMITS.faults = {operator: SHARE}
                judge(operator, f"{kind} {module}")
                operators.LIMITS.faults = {}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
