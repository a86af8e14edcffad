"""The state of a step on its way out of a device whose copies come as late as they may."""

import pytest

from tests.on_npu import answer_of

pytestmark = pytest.mark.story

CODE = """
import json, torch
from karez.runtime.device_staging import DeviceStaging
from karez.runtime.snapshot_writer import SnapshotWriter
from karez.runtime.tracked import Tracked
from karez.runtime.training_state import pack

torch.manual_seed(3)
device = torch.device("npu", 0)
model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7)).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
tracked = Tracked(model=model, optimizer=optimizer, others={}, devices=(device,))
staging, writer = DeviceStaging(device), SnapshotWriter()

def step():
    optimizer.zero_grad()
    model(torch.randn(4, 5, device=device)).square().sum().backward()
    optimizer.step()

def body(packed):
    return b"".join(bytes(part) for part in packed.parts)

answers = {}
step()
step()
"""


def test_a_step_that_is_copied_beside_the_next_is_the_same_bit_for_bit() -> None:
    code = """
kept = []
optimizer.register_step_pre_hook(lambda *_: kept[-1].hold_device())
for _ in range(3):
    wanted = body(pack(tracked))
    packed = pack(tracked, staging)
    kept.append(packed.copy)
    step()
    answers.setdefault("same", []).append(packed.copy.finish() and body(packed) == wanted)
print(json.dumps(answers))
"""
    assert answer_of(CODE + code)["same"] == [True] * 3


def test_without_the_optimizers_wait_the_next_step_would_be_in_it() -> None:
    code = """
wanted, packed = body(pack(tracked)), pack(tracked, staging)
step()
packed.copy.finish()
print(json.dumps(body(packed) == wanted))
"""
    assert not answer_of(CODE + code)


def test_a_copy_that_was_cut_short_is_not_written_and_a_complete_one_is() -> None:
    code = """
written = []
for name in ("cut", "whole"):
    packed = pack(tracked, staging)
    if name == "whole":
        packed.copy.finish()
    packed.copy.cancel()
    writer.begin(packed.copy, lambda: written.append(name))
    writer.wait()
print(json.dumps(written))
"""
    assert answer_of(CODE + code) == ["whole"]


def test_a_write_that_fails_is_told_to_whoever_waits_once() -> None:
    code = """
from karez.core.errors import StorageFull

def fail():
    raise StorageFull(path="/dev/shm", wanted_bytes=1)

writer.begin(pack(tracked, staging).copy, fail)
for _ in range(2):
    try:
        writer.wait()
        answers.setdefault("said", []).append("nothing")
    except StorageFull:
        answers.setdefault("said", []).append("full")
print(json.dumps(answers["said"]))
"""
    assert answer_of(CODE + code) == ["full", "nothing"]
