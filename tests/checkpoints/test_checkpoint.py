"""Checkpoints there and back again, bit for bit, and what is refused."""

import json
import math
import os
import pickle
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from karez.checkpoints import mindspore, pytorch, safetensors
from karez.checkpoints.convert import Order, convert, read
from karez.checkpoints.tensors import SIZES, Tensor, of_bytes
from karez.core.errors import BadRequest, BrokenArtifact

COMMON = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8", "bool")


@st.composite
def tensors(draw: st.DrawFn) -> list[Tensor]:
    names = draw(st.lists(st.text("abc.xyz_0", min_size=1, max_size=12), unique=True, max_size=5))
    found = []
    for name in names or ["a"]:
        dtype = draw(st.sampled_from(COMMON))
        shape = tuple(draw(st.lists(st.integers(0 if dtype == "x" else 1, 5), max_size=3)))
        size = math.prod(shape) * SIZES[dtype]
        body = draw(st.binary(min_size=size, max_size=size))
        if dtype == "bool":
            body = bytes(byte & 1 for byte in body)
        found.append(of_bytes(name, dtype, shape, body))
    return found


def contents(found: list[Tensor]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {one.name: (one.dtype, one.shape, one.read()) for one in found}


@settings(max_examples=60, deadline=None)
@given(tensors())
def test_every_format_gives_back_what_it_got(
    tmp_path_factory: pytest.TempPathFactory, given_tensors: list[Tensor]
) -> None:
    folder = tmp_path_factory.mktemp("c")
    pytorch.write(folder / "a.pt", given_tensors)
    safetensors.write(folder / "a.safetensors", given_tensors, {"k": "v"})
    mindspore.write(folder / "a.ckpt", given_tensors)
    safetensors.write_folder(folder / "shards", given_tensors, {}, 16)
    for name in ("a.pt", "a.safetensors", "a.ckpt", "shards"):
        again, others, _ = read(folder / name)
        assert contents(again) == contents(given_tensors), name
        assert not others


def test_torch_reads_what_was_written_and_the_other_way_round(tmp_path: Path) -> None:
    state = {
        "a.weight": torch.randn(3, 4),
        "a.half": torch.randn(5).to(torch.bfloat16),
        "n": torch.arange(6).reshape(2, 3).t(),
        "one": torch.tensor(2.5),
        "flag": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
    }
    state["tied"] = state["a.weight"]
    torch.save({"model": state, "epoch": 3, "optimizer": torch.optim.SGD}, tmp_path / "in.pt")
    done = convert(Order(source=tmp_path / "in.pt", target=tmp_path / "out.safetensors"))
    assert sorted(done["left_out"]) == ["epoch", "optimizer"]
    there = load_file(tmp_path / "out.safetensors")
    assert set(there) == {f"model.{name}" for name in state}
    convert(Order(source=tmp_path / "out.safetensors", target=tmp_path / "back.pt"))
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    for name, value in state.items():
        for found in (there[f"model.{name}"], back[f"model.{name}"]):
            assert found.dtype == value.dtype
            assert torch.equal(found, value), name


def test_a_pickle_in_it_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("run",)

    with zipfile.ZipFile(tmp_path / "e.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x": Evil()}, protocol=2))
    found, others = pytorch.read(tmp_path / "e.pt")
    assert (found, others) == ([], ["x"])


def test_names_of_mindspore_and_what_nobody_knows(tmp_path: Path) -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv1d(2, 3, 5),
        torch.nn.BatchNorm1d(3),
        torch.nn.Embedding(4, 2),
        torch.nn.PReLU(),
        torch.nn.Linear(2, 2),
    )
    torch.save(net.state_dict(), tmp_path / "net.pt")
    kinds = {"0": "conv1d", "2": "embedding", "3": "prelu"}
    done = convert(Order(source=tmp_path / "net.pt", target=tmp_path / "net.ckpt", kinds=kinds))
    found = {one.name: one.shape for one in mindspore.read(tmp_path / "net.ckpt")[0]}
    assert found["0.weight"] == (3, 2, 1, 5)
    assert {"1.gamma", "1.beta", "1.moving_mean", "1.moving_variance"} <= set(found)
    assert {"2.embedding_table", "3.w", "4.weight", "4.bias"} <= set(found)
    assert done["dropped"] == ["1.num_batches_tracked"]
    assert done["unmatched"] == ["4.weight", "4.bias"]


def test_rules_from_a_file_and_names_that_meet(tmp_path: Path) -> None:
    save_file({"h.0.w": torch.ones(2), "h.1.w": torch.ones(2)}, tmp_path / "a.safetensors")
    rules = tmp_path / "r.toml"
    rules.write_text('[[rule]]\nfrom = "h\\\\.(\\\\d)\\\\.w"\nto = "layers.\\\\1.weight"\n')
    order = Order(source=tmp_path / "a.safetensors", target=tmp_path / "b.safetensors", rules=rules)
    convert(order)
    assert set(load_file(tmp_path / "b.safetensors")) == {"layers.0.weight", "layers.1.weight"}
    rules.write_text('[[rule]]\nfrom = "h.*"\nto = "same"\n')
    with pytest.raises(BadRequest, match="both be called same"):
        convert(order)
    rules.write_text("nothing = 1\n")
    with pytest.raises(BadRequest, match="holds no rules"):
        convert(order)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(64)}, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    for name, body in (("short", whole[:20]), ("cut", whole[:-8]), ("text", b"hello world, hello")):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(body)
        with pytest.raises(BrokenArtifact):
            read(path)
        for suffix in (".pt", ".ckpt"):
            path.with_suffix(suffix).write_bytes(body)
            with pytest.raises(BrokenArtifact):
                read(path.with_suffix(suffix))
    with pytest.raises(BadRequest):
        read(tmp_path / "nowhere.pt")
    index = {"weight_map": {"a": "model-1.safetensors"}}
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "s" / "other.safetensors").write_bytes(whole)
    with pytest.raises(BrokenArtifact, match="is missing"):
        read(tmp_path / "s")


MINDSPORE = Path(os.environ.get("KAREZ_MINDSPORE_PYTHON", ".mindspore/bin/python"))
THERE = """
import sys
import mindspore as ms, numpy as np
found = ms.load_checkpoint(sys.argv[1])
for name in sorted(found):
    value = found[name]
    kind = str(value.dtype)
    body = value.asnumpy().tobytes().hex() if kind != "BFloat16" else ""
    print(name, kind, list(value.shape), body)
net = ms.nn.SequentialCell(ms.nn.Dense(3, 2), ms.nn.BatchNorm1d(2))
ms.save_checkpoint(net, sys.argv[2])
ms.save_checkpoint([{"name": "s", "data": ms.Tensor(np.float32(2.5))}], sys.argv[3])
"""


@pytest.mark.story
@pytest.mark.skipif(not MINDSPORE.exists(), reason="`make mindspore` installs MindSpore beside us")
def test_mindspore_itself_reads_what_was_written_and_the_other_way_round(tmp_path: Path) -> None:
    state = {
        "w": torch.randn(2, 3),
        "h": torch.randn(4).half(),
        "n": torch.arange(5),
        "one": torch.tensor(7.0),
        "b": torch.tensor([True, False]),
    }
    torch.save(state, tmp_path / "a.pt")
    convert(Order(source=tmp_path / "a.pt", target=tmp_path / "a.ckpt"))
    names = [str(tmp_path / name) for name in ("a.ckpt", "net.ckpt", "scalar.ckpt")]
    done = subprocess.run(
        [str(MINDSPORE), "-c", THERE, *names], capture_output=True, text=True, check=True
    )
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.split()[0] in state}
    assert set(rows) == set(state)
    for name, value in state.items():
        assert rows[name].endswith(value.numpy().tobytes().hex()), name
    found = {one.name: one for one in mindspore.read(tmp_path / "net.ckpt")[0]}
    assert found["0.weight"].shape == (2, 3)
    assert "1.gamma" in found
    (scalar,) = mindspore.read(tmp_path / "scalar.ckpt")[0]
    assert scalar.shape == ()
    convert(Order(source=tmp_path / "net.ckpt", target=tmp_path / "net.safetensors"))
    assert set(load_file(tmp_path / "net.safetensors")) == set(found)
