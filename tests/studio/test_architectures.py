"""Architectures are tried for real: tiny models, in processes that may crash."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from karez.cli.offline.model_matrix import last_matrix
from karez.studio.architectures.isolated import LIMITS, Limits, Teller, row_told_by
from karez.studio.architectures.model_types import model_types, type_of
from karez.studio.architectures.rows import COLUMNS, NONE, OK, Check, Row, from_tree
from karez.studio.architectures.tiny_config import Scale, tiny_fields
from karez.studio.architectures.tiny_model import TinyModel, build
from karez.studio.architectures.tiny_sizes import OVERRIDES

pytestmark = [pytest.mark.story, pytest.mark.filterwarnings("ignore")]
TRIED = ("llama", "falcon_mamba", "t5", "vit", "whisper", "qwen2_vl")


def tried(*words: str) -> tuple[list[Row], str]:
    """Rows that run_matrix prints, and what it says on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "karez.studio.architectures.run_matrix", *words],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()[1:]
    return [from_tree(json.loads(line)) for line in lines], done.stderr


def test_architectures_of_six_kinds_go_through_all_checks() -> None:
    rows, _ = tried(*TRIED)
    assert [row.model_type for row in rows] == list(TRIED)
    known = {row.model_type: row for row in last_matrix().rows}
    assert rows == [known[name] for name in TRIED]  # what was checked in still holds
    for row in rows:
        assert row.is_green, row
        assert row.outcomes.keys() == set(COLUMNS)
        for check in (Check.SAVE, Check.RECOVERY, Check.LORA):
            assert row.outcomes[check] == OK, row
    assert rows[3].outcomes[Check.GENERATE] == NONE
    assert {row.outcomes[Check.GENERATE] for row in rows[:3]} == {OK}


def test_the_matrix_that_karez_has_is_of_these_libraries_and_wide_enough() -> None:
    matrix = last_matrix()
    assert matrix.versions["transformers"] == version("transformers")
    assert matrix.versions["torch"].partition("+")[0] == version("torch").partition("+")[0]
    assert [row.model_type for row in matrix.rows] == list(model_types())
    assert sum(row.is_green for row in matrix.rows) >= 250


def end(how: str) -> None:
    if how == "signal":
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "memory":
        torch.zeros(2 * LIMITS.memory_bytes, dtype=torch.uint8)
    while how == "time":
        pass


@pytest.mark.parametrize(
    ("how", "said"),
    [("signal", "SIGTERM"), ("time", "processor time"), ("memory", "ended with an error")],
)
def test_a_check_that_ends_its_process_is_told_and_costs_only_what_comes_after(
    how: str, said: str
) -> None:
    def work(tell: Teller) -> None:
        tell.end(Check.CONFIG, OK)
        tell.begin(Check.TRAIN)
        end(how)
        tell.end(Check.TRAIN, OK)

    kind = model_types()["llama"]
    row = row_told_by(kind, work, Limits(cpu_s=1, memory_bytes=LIMITS.memory_bytes))
    assert row.outcomes[Check.CONFIG] == OK
    assert said in row.outcomes[Check.TRAIN]


def test_a_lower_limit_of_the_host_stays() -> None:
    kind = model_types()["llama"]
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)

    def work(tell: Teller) -> None:
        tell.end(Check.CONFIG, str(resource.getrlimit(resource.RLIMIT_CPU)[0]))

    def in_a_limited_process(tell: Teller) -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (40, 40))
        row = row_told_by(kind, work, Limits(cpu_s=50, memory_bytes=LIMITS.memory_bytes))
        tell.end(Check.INIT, row.outcomes[Check.CONFIG])

    row = row_told_by(kind, in_a_limited_process)
    assert row.outcomes[Check.INIT] == "40"
    assert resource.getrlimit(resource.RLIMIT_CPU) == (soft, hard)


def test_overrides_are_of_types_or_their_parts_and_change_something() -> None:
    known = model_types()
    for name, fields in OVERRIDES.items():
        own, _ = known[name].classes()
        assert fields.items() <= tiny_fields(own(), Scale.BY_NAME, fields).items() or any(
            isinstance(value, dict) for value in fields.values()
        )


def test_each_kind_of_layer_and_grouped_heads_stay() -> None:
    gemma, _ = model_types()["gemma3_text"].classes()
    fields = tiny_fields(gemma(), Scale.BY_NAME, {})
    assert set(fields["layer_types"]) == set(gemma().layer_types)
    assert len(fields["layer_types"]) == fields["num_hidden_layers"] == 2
    llama, _ = model_types()["llama"].classes()
    grouped = tiny_fields(llama(num_key_value_heads=8), Scale.BY_NAME, {})
    alone = tiny_fields(llama(num_key_value_heads=1), Scale.BY_NAME, {})
    same = tiny_fields(llama(), Scale.BY_NAME, {})
    assert [f["num_key_value_heads"] for f in (grouped, alone, same)] == [2, 1, 4]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama."""
    folder = tmp_path_factory.mktemp("llama")
    tiny = build(model_types()["llama"])
    assert isinstance(tiny, TinyModel)
    tiny.model.save_pretrained(folder)
    return folder


def spoil(folder: Path, target: Path, change: dict[str, Any]) -> Path:
    """A copy of a folder, some of whose tensors are others; None: without it."""
    target.mkdir()
    (target / "config.json").write_bytes((folder / "config.json").read_bytes())
    tensors = load_file(folder / "model.safetensors") | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.mark.deep
def test_weights_of_a_folder_are_all_read(llama: Path, tmp_path: Path) -> None:
    (row,), _ = tried("--folder", str(llama))
    assert row.outcomes[Check.WEIGHTS] == OK
    assert row.is_green
    name = "model.layers.0.self_attn.q_proj.weight"
    gone = spoil(llama, tmp_path / "gone", {name: None})
    wrong = spoil(llama, tmp_path / "wrong", {name: torch.zeros(3, 3)})
    nan = spoil(llama, tmp_path / "nan", {name: torch.full((32, 32), torch.nan)})
    for folder, said in ((gone, "missing"), (wrong, "of another shape"), (nan, "no number")):
        (row,), _ = tried("--folder", str(folder))
        assert re.fullmatch(f"1 weights are {said}: {re.escape(name)}", row.outcomes[Check.WEIGHTS])
        assert row.is_green  # the architecture itself is as good as before


def test_the_class_that_saved_a_folder_is_the_one_that_is_tried(llama: Path) -> None:
    kind = model_types()["bert"]
    config = kind.classes()[0](architectures=["BertForSequenceClassification"])
    found = type_of(config)
    assert found == replace(
        kind, family="sequence-classification", architecture="BertForSequenceClassification"
    )
