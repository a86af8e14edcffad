"""Storages of the emulated device: copied, pickled, saved and read as those of others are."""

import pytest

from tests.on_npu import answer_of

pytestmark = pytest.mark.story


def test_tensors_are_copied_deeply_pickled_and_saved_with_what_they_share() -> None:
    code = """
import copy, io, json, pickle, torch
base = torch.arange(6.0, device="npu")
view = base[2:5]
other, piece = copy.deepcopy((base, view))
other[3] = 9.0
file = io.BytesIO()
torch.save(view, file)
file.seek(0)
print(json.dumps({
    "shared": piece.tolist(), "old": base.tolist(), "on": str(piece.device),
    "pickled": pickle.loads(pickle.dumps(view)).tolist(), "saved": torch.load(file).tolist(),
}))
"""
    assert answer_of(code) == {
        "shared": [2.0, 9.0, 4.0],
        "old": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        "on": "npu:0",
        "pickled": [2.0, 3.0, 4.0],
        "saved": [2.0, 3.0, 4.0],
    }


def test_a_storage_is_copied_to_and_from_the_host_filled_and_read() -> None:
    code = """
import json, torch
base = torch.tensor([1, 2, 3], dtype=torch.uint8, device="npu")
storage = base.untyped_storage()
host = torch.zeros(3, dtype=torch.uint8)
host.untyped_storage().copy_(storage)
back = torch.zeros(3, dtype=torch.uint8, device="npu")
back.untyped_storage().copy_(host.untyped_storage())
listed, last = storage.tolist(), storage[2]
near = storage.to(device="cpu")
storage.fill_(7)
print(json.dumps([host.tolist(), back.tolist(), listed, last, list(near), base.tolist()]))
"""
    assert answer_of(code) == [[1, 2, 3]] * 3 + [3, [1, 2, 3], [7, 7, 7]]
