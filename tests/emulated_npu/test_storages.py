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


def test_a_storage_is_made_on_the_device_and_moved_to_it_as_map_location_does() -> None:
    code = """
import io, json, torch
made = torch.UntypedStorage(4, device="npu").fill_(7)
host = torch.tensor([1, 2], dtype=torch.uint8).untyped_storage()
there = host.to(device="npu:0")
there[0]
file = io.BytesIO()
torch.save({"w": torch.arange(3.0)}, file)
file.seek(0)
loaded = torch.load(file, map_location=lambda storage, place: storage.to(device="npu:0"))["w"]
print(json.dumps({
    "made": made.tolist(), "on": str(there.device), "moved": there.tolist(),
    "back": there.to(device="cpu").tolist(), "same": there.to(device="npu") is there,
    "loaded": [str(loaded.device), loaded.tolist()], "host": torch.UntypedStorage([5]).tolist(),
}))
"""
    assert answer_of(code) == {
        "made": [7, 7, 7, 7],
        "on": "npu:0",
        "moved": [1, 2],
        "back": [1, 2],
        "same": True,
        "loaded": ["npu:0", [0.0, 1.0, 2.0]],
        "host": [5],
    }
