"""Checkpoints of others: nothing in them runs, and nothing beyond the file is read (H12)."""

import io
import json
import os
import pickle
import random
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from karez.checkpoints import mindspore, pytorch, safetensors
from karez.checkpoints.tensors import Tensor, of_bytes
from karez.core.errors import BrokenArtifact

Read = Callable[[Path], tuple[list[Tensor], Any]]
READERS: dict[str, Read] = {
    "pt": pytorch.read,
    "safetensors": safetensors.read,
    "ckpt": mindspore.read,
}
FUZZ_S = float(os.environ.get("KAREZ_TEST_FUZZ_S", "1200"))
"""Seconds for each format: an hour in all."""


def seed_file(kind: str, folder: Path) -> Path:
    path = folder / f"seed.{kind}"
    state = {
        "a": torch.arange(12.0).reshape(3, 4),
        "b": torch.arange(6).reshape(2, 3).t(),
        "c": torch.tensor(1.5),
    }
    if kind == "pt":
        torch.save({"model": state, "step": 3}, path)
    elif kind == "safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        bodies = [of_bytes("w", "float32", (2, 3), bytes(24)), of_bytes("s", "int8", (), b"x")]
        mindspore.write(path, bodies)
    return path


def check(read: Read, path: Path) -> None:
    """It is refused, or all of its tensors have the bytes of their shapes, which the file has."""
    size = path.stat().st_size
    try:
        tensors, _ = read(path)
        for one in tensors:
            body = one.read()
            assert len(body) == one.size
            assert len(body) <= size
    except BrokenArtifact:
        return


def spoiled(seed: bytes, chance: random.Random) -> bytes:
    """A few changes of the kinds that readers stumble over."""
    body = bytearray(seed)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(body))
        match chance.randrange(6):
            case 0:
                body[at] = chance.randrange(256)
            case 1:
                number = chance.choice([0, 1, 2**31, 2**63, 2**64 - 1])
                body[at : at + 8] = struct.pack("<Q", number)
            case 2:
                del body[at : at + chance.randint(1, 64)]
            case 3:
                body[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 16)))
            case 4:
                other = chance.randrange(len(body))
                body[at : at + 16] = body[other : other + 16]
            case _:
                body[at] ^= 1 << chance.randrange(8)
        if not body:
            body = bytearray(b"x")
    return bytes(body)


def inner_spoiled(seed: bytes, chance: random.Random) -> bytes:
    """The pickle of an archive spoiled, in an archive that is whole."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(seed)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            body = old.read(info)
            if info.filename.endswith("data.pkl"):
                body = spoiled(body, chance)
            new.writestr(info.filename, body)
    return out.getvalue()


def fuzz(kind: str, folder: Path, until: Callable[[int], bool], seed: int) -> int:
    original, chance = seed_file(kind, folder).read_bytes(), random.Random(seed)
    path, count = folder / f"spoiled.{kind}", 0
    while not until(count):
        inner = kind == "pt" and chance.random() < 0.7
        path.write_bytes((inner_spoiled if inner else spoiled)(original, chance))
        check(READERS[kind], path)
        count += 1
    return count


@pytest.mark.parametrize("kind", READERS)
def test_spoiled_files_are_refused_or_read_within_their_bounds(kind: str, tmp_path: Path) -> None:
    assert fuzz(kind, tmp_path, lambda count: count >= 150, seed=1) == 150


@pytest.mark.deep
@pytest.mark.parametrize("kind", READERS)
def test_spoiled_files_for_long(kind: str, tmp_path: Path) -> None:
    end = time.monotonic() + FUZZ_S
    assert fuzz(kind, tmp_path, lambda _: time.monotonic() > end, seed=time.time_ns()) > 1000


class Storage:
    """Pickled as torch pickles a storage: by a persistent id."""

    def __init__(self, key: str) -> None:
        self.key = key


class Rebuilt:
    def __init__(self, *args: Any) -> None:
        self.args = args

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, self.args


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Storage):
            return ("storage", torch.FloatStorage, obj.key, "cpu", 16)
        return None


def archive(path: Path, view: tuple[Any, ...], body: bytes = bytes(64), **how: Any) -> Path:
    """A file with one tensor `w`, which is this (offset, shape, stride) of 16 numbers."""
    out = io.BytesIO()
    Pickler(out, protocol=2).dump({"w": Rebuilt(Storage("0"), *view, False, {})})
    with zipfile.ZipFile(path, "w", **how) as made:
        made.writestr("archive/data.pkl", out.getvalue())
        made.writestr("archive/data/0", body)
    return path


@pytest.mark.parametrize(
    "view",
    [
        (0, (20_000,), (1,)),
        (0, (2_000_000,), (2000,)),
        (8, (16,), (1,)),
        (17, (1,), (1,)),
        (-1, (2,), (1,)),
        (0, (-3,), (1,)),
        (0, (2, 2), (-1, 1)),
        (0, (4,), (1, 1)),
        (0, (2**62, 2**62), (0, 0)),
        (0, (1_000_000,), (0,)),
        (0, (1,) * 70, (1,) * 70),
        ("x", (4,), (1,)),
        (0, ("a",), (1,)),
    ],
)
def test_a_tensor_has_to_lie_in_its_storage(tmp_path: Path, view: tuple[Any, ...]) -> None:
    with pytest.raises(BrokenArtifact):
        pytorch.read(archive(tmp_path / "w.pt", view))


def test_one_that_does_is_read(tmp_path: Path) -> None:
    numbers = struct.pack("<16f", *range(16))
    (found,), _ = pytorch.read(archive(tmp_path / "w.pt", (1, (2, 3), (1, 4)), numbers))
    assert struct.unpack("<6f", found.read()) == (1, 5, 9, 2, 6, 10)


def test_what_is_packed_is_refused(tmp_path: Path) -> None:
    """A small file whose member would become large."""
    path = archive(
        tmp_path / "w.pt", (0, (4,), (1,)), bytes(1 << 24), compression=zipfile.ZIP_DEFLATED
    )
    with pytest.raises(BrokenArtifact, match="compressed"):
        pytorch.read(path)


def test_a_pickle_that_refers_to_itself_is_refused(tmp_path: Path) -> None:
    tree: list[Any] = ["x"]
    for _ in range(60):
        tree = [tree, tree]
    own: list[Any] = []
    own.append(own)
    for value in (tree, own):
        path = tmp_path / "w.pt"
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("archive/data.pkl", pickle.dumps(value))
        with pytest.raises(BrokenArtifact, match=r"nested|objects"):
            pytorch.read(path)


def test_many_words_beside_the_tensors_do_no_harm(tmp_path: Path) -> None:
    state = {"w": torch.ones(2), "words": [f"word {n}" for n in range(200_000)]}
    torch.save(state, tmp_path / "w.pt")
    found, others = pytorch.read(tmp_path / "w.pt")
    assert ([one.name for one in found], len(others)) == (["w"], 200_000)


def test_a_pickle_that_would_take_all_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    for text in (b"}r\xff\xff\xff\x7f.", b"}p2147483647\n.", b"\x8e" + b"\xff" * 7 + b"\x7fx."):
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("archive/data.pkl", text)
        with pytest.raises(BrokenArtifact):
            pytorch.read(path)


@pytest.mark.parametrize(
    "row",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, True]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [2]},
        {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]},
        [],
        None,
    ],
)
def test_a_header_of_safetensors_says_where_within_the_file(tmp_path: Path, row: object) -> None:
    head = json.dumps({"w": row}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(8))
    with pytest.raises(BrokenArtifact):
        safetensors.read(path)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "a/b", "", 5])
def test_an_index_names_files_of_its_folder(tmp_path: Path, name: object) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"w": torch.ones(1)}, tmp_path / "outside.safetensors")
    (folder / safetensors.INDEX).write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(BrokenArtifact):
        safetensors.read_folder(folder)
