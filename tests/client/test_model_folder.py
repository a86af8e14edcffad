"""A model's folder is looked at before it is uploaded or tried: whole, safe, and known."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from karez.client.model_folder import (
    INDEX,
    ModelFolder,
    check_known,
    check_upload,
    read_model_folder,
)
from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.errors import BadRequest, BrokenArtifact
from tests.api import Api

BODY = b"\0" * 16


def safetensors(body: bytes = BODY, offsets: object = (0, 16)) -> bytes:
    head = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": offsets}}).encode()
    return struct.pack("<Q", len(head)) + head + body


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    root.mkdir()
    (root / "config.json").write_text('{"model_type": "llama"}')
    (root / "model.safetensors").write_bytes(safetensors())
    return root


def test_a_whole_folder_is_described(folder: Path) -> None:
    (folder / "training_args.bin").write_bytes(b"x")
    assert read_model_folder(folder) == ModelFolder(
        folder=folder,
        model_type="llama",
        weight_files=("model.safetensors",),
        weights_bytes=len(BODY),
        own_code=(),
    )


def test_shards_are_those_of_the_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "b.safetensors").write_bytes(safetensors())
    (folder / "unused.safetensors").write_bytes(b"no header")
    index = {"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}
    (folder / INDEX).write_text(json.dumps(index))
    assert read_model_folder(folder).weights_bytes == 2 * len(BODY)


def no_config(root: Path) -> None:
    (root / "config.json").unlink()


def no_json(root: Path) -> None:
    (root / "config.json").write_text('{"model_type": "llama"')


def no_object(root: Path) -> None:
    (root / "config.json").write_text("[1]")


def no_type(root: Path) -> None:
    (root / "config.json").write_text('{"model_type": ""}')


def no_weights(root: Path) -> None:
    (root / "model.safetensors").unlink()


def cut_off(root: Path) -> None:
    (root / "model.safetensors").write_bytes(safetensors(BODY[:-1]))


def cut_header(root: Path) -> None:
    (root / "model.safetensors").write_bytes(safetensors()[:20])


def empty(root: Path) -> None:
    (root / "model.safetensors").write_bytes(b"")


def bad_offsets(root: Path) -> None:
    (root / "model.safetensors").write_bytes(safetensors(offsets=[8, "16"]))


def missing_shard(root: Path) -> None:
    (root / "model.safetensors").rename(root / "a.safetensors")
    index = {"weight_map": {"w": "a.safetensors", "v": "gone.safetensors"}}
    (root / INDEX).write_text(json.dumps(index))


def shard_elsewhere(root: Path) -> None:
    (root / "model.safetensors").unlink()
    (root / INDEX).write_text(json.dumps({"weight_map": {"w": "../other.safetensors"}}))


def empty_map(root: Path) -> None:
    (root / "model.safetensors").unlink()
    (root / INDEX).write_text('{"weight_map": {}}')


def dangling(root: Path) -> None:
    (root / "model.safetensors").unlink()
    (root / "model.safetensors").symlink_to("nowhere")


def longer(root: Path) -> None:
    (root / "model.safetensors").write_bytes(safetensors(BODY + b"end"))


def no_map(root: Path) -> None:
    (root / "model.safetensors").unlink()
    (root / INDEX).write_text(json.dumps({"weights": 1}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_config, "has no config.json"),
        (no_json, "is no JSON"),
        (no_object, "is no JSON object"),
        (no_type, "names no model_type"),
        (no_weights, "has no weights"),
        (cut_off, "1 bytes of its weights are missing"),
        (cut_header, "longer than the file"),
        (empty, "too short"),
        (bad_offsets, "no place for 'w'"),
        (missing_shard, "1 of 2 shards are missing: gone.safetensors"),
        (shard_elsewhere, "in another folder"),
        (no_map, "no weight_map"),
        (empty_map, "no weight_map"),
        (dangling, "cannot be read"),
        (longer, "3 bytes of it belong to no weight"),
    ],
)
def test_a_broken_folder_is_refused_with_what_is_wrong(
    folder: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(folder)
    with pytest.raises(BrokenArtifact) as refused:
        read_model_folder(folder)
    assert said in refused.value.what()


def test_pickles_are_refused_with_the_command_that_converts_them(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BadRequest) as refused:
        read_model_folder(folder)
    assert "pickles (pytorch_model.bin)" in refused.value.what()
    assert f"karez migrate checkpoint {folder / 'pytorch_model.bin'}" in refused.value.hint()


def test_one_of_several_pickles_is_not_taken_for_the_model(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model-1.bin", "pytorch_model-2.bin", "rng_state_0.pth", "scaler.pt"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(BadRequest) as refused:
        read_model_folder(folder)
    assert "(pytorch_model-1.bin, pytorch_model-2.bin)" in refused.value.what()
    assert "save_pretrained" in refused.value.hint()


def test_a_whole_file_counts_and_not_an_index_beside_it(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"w": "gone.safetensors"}}))
    assert read_model_folder(folder).weight_files == ("model.safetensors",)


def test_an_adapter_is_uploaded_and_told_from_a_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    no_weights(folder)
    check_upload(folder)
    with pytest.raises(BadRequest, match="is an adapter"):
        read_model_folder(folder)


@pytest.mark.parametrize("spoil", [cut_off, "pickle"])
def test_other_formats_beside_weights_do_not_excuse_them(
    folder: Path, spoil: Callable[[Path], None] | str
) -> None:
    (folder / "model.onnx").write_bytes(b"x")
    if callable(spoil):
        spoil(folder)
    else:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises((BadRequest, BrokenArtifact)):
        check_upload(folder)


@pytest.mark.parametrize("text", ["[1]", '{"model_type": null}', '{"width": 3}'])
def test_configurations_of_other_libraries_are_not_looked_into(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    cut_off(folder)
    check_upload(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest):
        read_model_folder(tmp_path / "nowhere")


def test_code_of_the_folder_is_named_and_refused_where_transformers_has_no_class(
    folder: Path,
) -> None:
    config = {"model_type": "lama", "auto_map": {"AutoModel": "org/repo--modeling_lama.Lama"}}
    (folder / "config.json").write_text(json.dumps(config))
    found = read_model_folder(folder)
    assert found.own_code == ("modeling_lama.py",)
    with pytest.raises(BadRequest) as refused:
        check_known(found, ["llama", "bert"])
    assert "modeling_lama.py" in refused.value.what()
    assert "llama" in refused.value.hint()
    check_known(found, ["lama"])


def test_an_unknown_type_without_code_is_refused(folder: Path) -> None:
    with pytest.raises(BadRequest, match="not in the installed transformers"):
        check_known(read_model_folder(folder), ["bert"])


@pytest.mark.parametrize(
    "names",
    [
        ("model-q8.gguf",),
        ("openvino_model.xml", "openvino_model.bin"),
        ("onnx/model.onnx",),
        ("tf_model.h5",),
    ],
)
def test_folders_of_other_formats_may_have_a_configuration_beside_their_weights(
    folder: Path, names: tuple[str, ...]
) -> None:
    no_weights(folder)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"weights")
    check_upload(folder)


def test_nothing_is_registered_of_a_broken_model(api: Api, url: str, folder: Path) -> None:
    cut_off(folder)
    with Client(url, api.admin) as client:
        with pytest.raises(BrokenArtifact):
            client.upload(folder, name="m", kind=ArtifactKind.MODEL)
        assert client.artifacts() == []
        (folder / "model.safetensors").write_bytes(safetensors())
        assert client.upload(folder, name="m", kind=ArtifactKind.MODEL).spec.format == "hf"
