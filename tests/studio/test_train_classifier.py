"""Classifiers of texts: trained, measured and refused, on a CPU and on an emulated NPU."""

import json
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification, BertModel

from karez.core.errors import BrokenArtifact
from karez.engines.pooled_classifier import is_pooled_classifier
from karez.engines.vector_model import Pooling
from karez.studio.recipes.classifier import is_classifier, new_classifier
from karez.studio.recipes.classifying import labelled, load_trained
from karez.studio.recipes.linear_head import fit_linear_head
from karez.studio.recipes.recipe_io import read_rows
from karez.studio.recipes.train_classifier import passes
from tests.on_npu import run_granted
from tests.studio.test_recipes_on_npu import CPU, card_of, last, run_recipe
from tests.tiny_bert import write_tiny_bert
from tests.tiny_chat import write_tiny_chat

pytestmark = pytest.mark.story
COLOURS = ("red", "blue", "green")
TRAINED = {"epochs": 6, "batch": 16, "learning_rate": 0.01}


RATED = {"rows": 160, "target_accuracy": 0.9, "typos": 0.8}


def write(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    chats = (
        [{"role": "user", "content": text}, {"role": "assistant", "content": label}]
        for text, label in rows
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in chats))


def coloured(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts whose label is the colour that they name."""
    drawn = random.Random(seed)
    rows = []
    for _ in range(count):
        colour = drawn.choice(COLOURS)
        words = [drawn.choice(("car", "bus")) for _ in range(drawn.randint(1, 6))]
        words.insert(drawn.randint(0, len(words)), colour)
        rows.append((" ".join(words), f"{colour} things"))
    return rows


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_tiny_bert(folder / "model", BertModel)
    pooling = folder / "model" / "1_Pooling" / "config.json"
    pooling.parent.mkdir()
    pooling.write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    for number, part in enumerate(("train", "validation", "held_out")):
        write(folder / "data" / f"{part}.jsonl", coloured(160, number))
    return folder


def evaluated(inputs: Path, model: Path, out: Path, **variables: str) -> dict[str, Any]:
    """The report on a trained model beside the one that it came from."""
    both = out / "inputs"
    both.mkdir(parents=True)
    (both / "data").symlink_to(inputs / "data")
    (both / "base").symlink_to(inputs / "model")
    (both / "model").symlink_to(model)
    done = run_recipe("evaluate", both, out, RATED, **variables)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((out / "report" / "report.json").read_text())
    return report


def test_a_classifier_is_trained_and_measured_on_a_device(inputs: Path, tmp_path: Path) -> None:
    done = run_recipe("train_classifier", inputs, tmp_path / "npu", TRAINED)
    assert min(last(done)["seen"].values()) > 50
    assert "on npu:0, emulated" in done.stdout
    assert "epoch 6 of 6: " in done.stdout or "the best epoch" in done.stdout
    assert is_pooled_classifier(tmp_path / "npu" / "model")
    facts = card_of(tmp_path / "npu" / "model")
    assert facts["labels"] == 3
    assert facts["validation_accuracy"] > 0.9
    report = evaluated(inputs, tmp_path / "npu" / "model", tmp_path / "report")
    assert report["device"] == "npu:0, emulated"
    model = report["model"]
    assert model["accuracy"] > 0.9
    assert model["selective"]["coverage"] > 0.5
    assert {one["label"] for one in model["labels"]} == {f"{c} things" for c in COLOURS}
    assert model["calibration"]["error"] < 0.3
    mistyped = report["mistyped"]
    assert mistyped["accuracy"] < model["accuracy"] - 0.1  # of five words, each is another one
    assert mistyped["paired"]["words"].endswith("worse")
    base = report["base"]
    assert base["measured_as"].startswith("logistic regression on its vectors")
    assert 0.3 < base["accuracy"] <= 1


def test_a_new_classifier_pads_as_its_vectors_are_pooled(inputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "left"
    shutil.copytree(inputs / "model", folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": "left"}))
    tokenizer, model = new_classifier(folder, torch.device("cpu"), ("a", "b"))
    alone, _ = (tokenizer(text, return_tensors="pt") for text in ("red car", "bus"))
    both = tokenizer.pad({"input_ids": [[2, 5, 8, 3], [2, 5, 8, 9, 6, 8, 3]]}, return_tensors="pt")
    model.eval()
    with torch.inference_mode():
        assert torch.allclose(model(**both).logits[0], model(**alone).logits[0], atol=1e-5)


def test_a_dense_layer_of_others_names_no_labels(inputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dense"
    shutil.copytree(inputs / "model", folder)
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"x")
    assert not is_classifier(folder)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    assert Pooling.of(folder).is_first
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(BrokenArtifact, match="pools vectors by pooling_mode_max_tokens"):
        Pooling.of(folder)


@pytest.mark.deep
@pytest.mark.parametrize("promoted_at", [15, 35])
def test_a_rank_that_becomes_the_first_delivers_the_best_model_or_none(
    promoted_at: int, inputs: Path, tmp_path: Path
) -> None:
    """It is rank 1 until a step: so nobody has saved what was the best before."""
    code = f"""
from karez.runtime.run import Run
Run.rank = property(lambda self: int(self.step < {promoted_at}))
from karez.studio.recipes.train_classifier import main
main()
"""
    done = run_granted(
        code,
        KAREZ_INPUTS=str(inputs),
        KAREZ_OUT=str(tmp_path),
        KAREZ_SETTINGS=json.dumps({**TRAINED, "patience": 6}),
        **CPU,
    )
    if done.returncode:
        assert "the best model" in done.stderr
        assert not (tmp_path / "model").exists()
        return
    rows = read_rows(inputs / "data" / "validation.jsonl")
    found = labelled(load_trained(tmp_path / "model", torch.device("cpu")), "model", rows)
    right = sum(one.is_right for one in found.judged) / len(rows)
    assert right == pytest.approx(card_of(tmp_path / "model")["validation_accuracy"], abs=1e-4)


@pytest.mark.deep
def test_a_cpu_measures_what_a_device_measures(inputs: Path, tmp_path: Path) -> None:
    last(run_recipe("train_classifier", inputs, tmp_path / "cpu", TRAINED, **CPU))
    model = tmp_path / "cpu" / "model"
    on_npu = evaluated(inputs, model, tmp_path / "on-npu")
    on_cpu = evaluated(inputs, model, tmp_path / "on-cpu", **CPU)
    for role in ("base", "model"):
        assert on_npu[role]["loss"] == pytest.approx(on_cpu[role]["loss"], rel=2e-2)


@pytest.mark.deep
def test_the_last_epoch_is_kept_without_a_look_at_validation_rows(
    inputs: Path, tmp_path: Path
) -> None:
    settings = {**TRAINED, "epochs": 2, "keep": "last"}
    last(run_recipe("train_classifier", inputs, tmp_path, settings, **CPU))
    facts = card_of(tmp_path / "model")
    assert "validation_accuracy" not in facts
    assert facts["steps"] == 2 * (160 // 16)


def trained(model: Path, data: Path, out: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    folder = out / "inputs"
    folder.mkdir()
    (folder / "model").symlink_to(model)
    (folder / "data").symlink_to(data)
    return run_recipe("train_classifier", folder, out, {**TRAINED, **more}, **CPU)


@pytest.mark.deep
def test_rows_that_no_classifier_can_learn_are_refused(inputs: Path, tmp_path: Path) -> None:
    cases = {
        "one": ([("red", "a")] * 9, "9 training rows have the label 'a'"),
        "free": ([(f"red {n}", f"answer {n}") for n in range(9)], "9 answers: no labels"),
        "long": ([("red " * 200, "ab"[n % 2]) for n in range(9)], "longer than the 64 tokens"),
    }
    for name, (rows, problem) in cases.items():
        write(tmp_path / name / "data" / "train.jsonl", rows)
        done = trained(inputs / "model", tmp_path / name / "data", tmp_path / name)
        assert done.returncode != 0
        assert problem in done.stderr
        assert not (tmp_path / name / "model").exists()


@pytest.mark.deep
@pytest.mark.parametrize("kind", ["encoder", "writer"])
def test_other_models_become_classifiers_as_transformers_knows_how(
    kind: str, inputs: Path, tmp_path: Path
) -> None:
    if kind == "encoder":
        write_tiny_bert(tmp_path / kind, BertModel)
    else:
        write_tiny_chat(tmp_path / kind)
    last(trained(tmp_path / kind, inputs / "data", tmp_path, epochs=20, learning_rate=5e-3))
    assert is_classifier(tmp_path / "model")
    assert not is_pooled_classifier(tmp_path / "model")
    report = evaluated(inputs, tmp_path / "model", tmp_path / "report", **CPU)["model"]
    assert report["accuracy"] > 0.5


@pytest.mark.deep
def test_a_base_with_labels_of_its_own_is_measured_by_its_vectors(
    inputs: Path, tmp_path: Path
) -> None:
    other = {"id2label": {0: "up", 1: "down"}, "label2id": {"up": 0, "down": 1}}
    write_tiny_bert(tmp_path / "base", BertForSequenceClassification, **other)
    last(trained(inputs / "model", inputs / "data", tmp_path, epochs=6))
    both = tmp_path / "both"
    both.mkdir()
    for name, where in (("data", inputs / "data"), ("base", tmp_path / "base")):
        (both / name).symlink_to(where)
    (both / "model").symlink_to(tmp_path / "model")
    last(run_recipe("evaluate", both, tmp_path / "measured", RATED, **CPU))
    report = json.loads((tmp_path / "measured" / "report" / "report.json").read_text())
    assert report["base"]["measured_as"].startswith("logistic regression")
    assert report["base"]["accuracy"] > 0.3


@pytest.mark.deep
def test_a_label_that_was_not_trained_on_is_wrong_and_named(inputs: Path, tmp_path: Path) -> None:
    last(trained(inputs / "model", inputs / "data", tmp_path, epochs=1))
    write(tmp_path / "other" / "data" / "train.jsonl", coloured(20, 1))
    write(tmp_path / "other" / "data" / "held_out.jsonl", [("red car", "pink things")] * 3)
    both = tmp_path / "other"
    (both / "model").symlink_to(tmp_path / "model")
    done = run_recipe("evaluate", both, tmp_path / "measured", {}, **CPU)
    last(done)
    report = json.loads((tmp_path / "measured" / "report" / "report.json").read_text())["model"]
    assert (report["accuracy"], report["right"]) == (0, 0)
    assert "does not know 1 of the labels, such as 'pink things'" in done.stdout


def test_the_linear_head_finds_what_is_linear() -> None:
    drawn = torch.Generator().manual_seed(0)
    vectors = torch.randn(300, 8, generator=drawn)
    labels = vectors[:, :3].argmax(1)
    head, _ = fit_linear_head(vectors.numpy(), labels.tolist(), 3, torch.device("cpu"))
    found = torch.from_numpy(head.chances(vectors.numpy())).argmax(1)
    assert float((found == labels).float().mean()) > 0.95


def test_few_rows_are_passed_over_more_often() -> None:
    assert [passes(steps) for steps in (1, 20, 100, 10_000)] == [30, 20, 6, 6]
