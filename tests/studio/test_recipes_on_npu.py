"""Recipes on a granted device: every parameter, activation and gradient is there."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.on_npu import run_granted
from tests.tiny_chat import write_rows, write_tiny_chat

pytestmark = pytest.mark.story

RUN = """
import json, sys
import torch
from tests.on_device import SEEN, refuse_host_tensors
if torch.accelerator.is_available():
    refuse_host_tensors("npu")
import importlib
importlib.import_module("karez.studio.recipes.{recipe}").main()
peak = torch.npu.max_memory_allocated() if torch.accelerator.is_available() else 0
print(json.dumps({{"seen": SEEN, "peak": peak}}))
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_tiny_chat(folder / "model")
    write_rows(folder / "data")
    return folder


def run_recipe(
    recipe: str, inputs: Path, out: Path, settings: dict[str, Any], **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a recipe as its node would."""
    return run_granted(
        RUN.format(recipe=recipe),
        KAREZ_INPUTS=str(inputs),
        KAREZ_OUT=str(out),
        KAREZ_SETTINGS=json.dumps(settings),
        HF_HUB_OFFLINE="1",
        **variables,
    )


def card_of(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "karez.json").read_text())["facts"]
    return facts


CPU = {"KAREZ_DEVICE": "cpu", "KAREZ_EMUNPU": ""}
SFT = {"steps": 3, "batch": 4, "max_tokens": 64, "dtype": "float32"}


def last(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_fine_tuning_has_every_tensor_on_the_device(inputs: Path, tmp_path: Path) -> None:
    done = run_recipe("sft_lora", inputs, tmp_path, SFT)
    said = last(done)
    assert min(said["seen"].values()) > 50
    assert "rank 0 of 1 on npu:0, emulated" in done.stdout
    assert card_of(tmp_path / "model")["device"] == "npu:0, emulated"
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


def test_float16_trains_with_a_scaler(inputs: Path, tmp_path: Path) -> None:
    done = run_recipe("sft_lora", inputs, tmp_path, {**SFT, "dtype": "float16"})
    last(done)
    assert "base in float16" in done.stdout


def test_evaluation_computes_on_the_device_what_the_cpu_computes(
    inputs: Path, tmp_path: Path
) -> None:
    settings = {"rows": 8, "batch": 4, "max_tokens": 64}
    said = last(
        run_recipe(
            "evaluate", inputs, tmp_path / "npu", settings, KAREZ_EMUNPU_NO_DTYPES="bfloat16"
        )
    )
    assert said["seen"]["activation"] > 100
    last(run_recipe("evaluate", inputs, tmp_path / "bf16", settings))
    last(run_recipe("evaluate", inputs, tmp_path / "cpu", settings, **CPU))
    reports = {
        name: json.loads((tmp_path / name / "report" / "report.json").read_text())
        for name in ("npu", "bf16", "cpu")
    }
    assert reports["bf16"]["device"] == "npu:0, emulated"
    assert reports["cpu"]["device"] == "cpu"
    for name in ("npu", "bf16"):
        assert reports[name]["model"]["loss"] == pytest.approx(
            reports["cpu"]["model"]["loss"], rel=2e-2
        )


def test_a_step_that_does_not_fit_recomputes_activations(inputs: Path, tmp_path: Path) -> None:
    few = {"KAREZ_EMUNPU_MEMORY": str(2_500_000)}
    done = run_recipe("sft_lora", inputs, tmp_path, {**SFT, "batch": 8}, **few)
    said = last(done)
    assert "gradient checkpointing" in done.stdout
    assert said["peak"] <= 2_500_000


def test_a_step_that_can_never_fit_is_refused_before_it_starts(
    inputs: Path, tmp_path: Path
) -> None:
    few = {"KAREZ_EMUNPU_MEMORY": str(2_500_000)}
    done = run_recipe("sft_lora", inputs, tmp_path, {**SFT, "batch": 400}, **few)
    assert done.returncode == 1
    assert "npu:0 has no memory for a step of 400 rows" in done.stderr
    assert "rows a rank fit" in done.stderr
    assert not (tmp_path / "adapter").exists()


def test_a_target_is_judged_with_a_threshold_of_validation_rows(
    inputs: Path, tmp_path: Path
) -> None:
    """The tiny model answers nothing right: so no threshold, and no claim."""
    settings = {"rows": 8, "batch": 4, "max_tokens": 64, "target_accuracy": 0.5}
    done = run_recipe("evaluate", inputs, tmp_path / "without", settings, **CPU)
    assert "the data set has none" in done.stderr
    assert done.returncode != 0
    folder = tmp_path / "inputs"
    folder.mkdir()
    (folder / "model").symlink_to(inputs / "model")
    (folder / "data").mkdir()
    (folder / "data" / "held_out.jsonl").symlink_to(inputs / "data" / "held_out.jsonl")
    (folder / "data" / "validation.jsonl").symlink_to(inputs / "data" / "train.jsonl")
    last(run_recipe("evaluate", folder, tmp_path / "with", settings, **CPU))
    report = json.loads((tmp_path / "with" / "report" / "report.json").read_text())["model"]
    assert report["selective"]["target"] == 0.5
    assert report["selective"]["words"].startswith("no answers at 50%")
    assert report["selective"]["curve"][-1] == [1.0, report["accuracy"]]
    assert all(0 <= answer["confidence"] < 1 for answer in report["answers"])
