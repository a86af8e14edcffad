"""Advice by the source alone: what is found where, and what is left in peace."""

from pathlib import Path

import pytest

from karez.core.errors import BadRequest
from karez.tuning.advice import advise, advise_text

HEAD = "import torch\nimport torch.nn.functional as F\n"
FOUND = [
    ("sync-in-loop", "for b in d:\n    log(loss.item())"),
    ("sync-in-loop", "while True:\n    x.cpu()"),
    ("cache-in-loop", "for b in d:\n    torch.cuda.empty_cache()"),
    ("dynamic-shape", "for b in d:\n    i = torch.nonzero(b)"),
    ("dynamic-shape", "for b in d:\n    y = x[x > 0]"),
    ("slow-type", "x.to(torch.float64)"),
    ("channels-last", "m.to(memory_format=torch.channels_last)"),
    ("sync-batchnorm", "torch.nn.SyncBatchNorm.convert_sync_batchnorm(m)"),
    ("fused-attention", "def f(q, k, v):\n    return F.softmax(q @ k.mT, -1) @ v"),
    ("fused-optimizer", "torch.optim.AdamW(p)"),
    ("odd-size", "torch.nn.Linear(770, 64)"),
    ("fused-swiglu", "y = F.silu(a) * b"),
    ("fused-rmsnorm", "y = x * torch.rsqrt(x.pow(2).mean(-1) + e)"),
]
NOT_FOUND = [
    "loss.item()",
    "torch.cuda.empty_cache()",
    "x[x > 0] = 1",
    "torch.optim.AdamW(p, fused=True)",
    "torch.nn.Linear(768, 64)",
    "torch.nn.Linear(10, 10)",
    "F.softmax(x, -1)",
    "for b in d:\n    def f():\n        return x.item()",
    "y = a * b",
]


@pytest.mark.parametrize(("rule", "code"), FOUND)
def test_what_is_found(rule: str, code: str) -> None:
    found = advise_text("a.py", HEAD + code + "\n")
    assert rule in {one.rule for one in found}
    assert all(one.reason and one.source and one.line > 2 for one in found)


@pytest.mark.parametrize("code", NOT_FOUND)
def test_what_is_left_in_peace(code: str) -> None:
    assert not advise_text("a.py", HEAD + code + "\n")


def test_a_folder_with_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(HEAD + "torch.optim.SGD(p)\n")
    (tmp_path / "b.py").write_text("import torch\nprint 'x'\n")
    (one,) = advise(tmp_path)
    assert (one.path, one.line) == ("a.py", 3)
    with pytest.raises(BadRequest):
        advise(tmp_path / "nowhere")
