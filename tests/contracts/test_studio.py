"""`karez studio`: from a table to a served model, though the command and a rank are killed."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import BertModel

from karez.client import calls
from karez.client.data_sets import job_stem
from karez.core.artifacts import ArtifactKind
from karez.core.jobs import Job
from karez.core.workloads import State
from karez.studio.recipes.llamacpp_answers import llamacpp_answers
from tests.contracts.cloud import Cloud, kill_rank, make_cloud, until
from tests.studio.tables import as_csv, questions
from tests.tiny_bert import write_tiny_bert
from tests.tiny_bpe_model import write_tiny_bpe_model
from tests.tiny_chat import speak_ascii, write_tiny_chat

pytestmark = pytest.mark.story
STEPS = 400
WAYS = ("car", "bus", "car bus", "bus car", "bus bus")
STEM = job_stem("Desk 1")


SWEEP = """
name = "rates"
metric = "model/validation_accuracy"
goal = "max"
method = "grid"
[job]
recipe = "train-classifier"
kind = "train"
inputs = { model = "words", data = "sorter" }
settings = { learning_rate = 1e-6, epochs = 3, batch = 8 }
[settings.learning_rate]
values = [1e-5, 0.01]
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = make_cloud(tmp_path_factory.mktemp("home"))
    made.karez("up")
    yield made
    made.karez("down")


def test_a_table_becomes_a_service_through_two_kills(cloud: Cloud, tmp_path: Path) -> None:
    table = tmp_path / "tickets.csv"
    table.write_bytes(as_csv(questions(60), "subject,queue"))
    with cloud.client() as client:
        folder = speak_ascii(write_tiny_chat(tmp_path / "chat"))
        client.upload(folder, name="tiny", kind=ArtifactKind.MODEL, format="hf")
        words = ["studio", str(table), "--name", "Desk 1", "--model", "tiny", "--serve-as", "hf"]
        words += ["--prompt", "subject", "--answer", "queue", "--steps", str(STEPS)]
        words += ["--context", "256", "--rows", "6", "--licence", "CC0-1.0"]
        words += ["--target-accuracy", "0.5"]

        def tune() -> Job | None:
            found = [job for job in client.jobs() if job.spec.name == f"{STEM}-tune"]
            return found[0] if found else None

        def is_training() -> bool:
            job = tune()
            return job is not None and job.state == State.RUNNING and job.status.step > 0

        with cloud.started(*words) as command:
            until(is_training)
            command.send_signal(signal.SIGKILL)
        kill_rank(client, f"{STEM}-tune", -1)
        result = json.loads(cloud.karez(*words, "--json").stdout)

        jobs = {job.spec.name: job for job in client.jobs()}
        assert set(jobs) == {f"{STEM}-{step}" for step in ("data", "tune", "eval")}
        assert len(client.jobs()) == 3  # none was done twice
        assert all(job.state == State.SUCCEEDED for job in jobs.values())
        (receipt,) = client.receipts(jobs[f"{STEM}-tune"].id)
        assert receipt.steps_lost <= 1  # the one under way
        measured = result["measured"]["model"]
        assert measured["loss"] < result["measured"]["base"]["loss"] - 1
        assert measured["selective"]["target"] == 0.5
        assert measured["selective"]["curve"][-1][0] == 1.0
        data = client.artifact("Desk 1")
        assert (data.id, data.spec.lineage.licence) == (result["data"], "CC0-1.0")
        assert client.artifact(result["model"]).spec.lineage.inputs["data"] == data.id
        assert "label2" in cloud.karez("data", "preview", "Desk 1").stdout
        answer = cloud.karez("chat", STEM, questions(1)[0][0], "--temperature", "0").stdout
        assert answer.strip()

        again = cloud.karez(*words, "--rows", "5").stdout  # only the measuring is another
        assert again.count("has done this already") == 2
        assert len(client.jobs()) == 4
        assert "expected: label" in again
        assert "With a threshold: " in again


def test_a_table_becomes_a_served_classifier_though_a_rank_is_killed(
    cloud: Cloud, tmp_path: Path
) -> None:
    """The tiny model knows five words, and the labels are colours among them."""
    texts = [
        f"{way}{' red' * (n % 2)}{' blue' * (1 - n % 2)} {n}" for n, way in enumerate(WAYS * 40)
    ]
    pairs = [(text, "warm" if "red" in text else "cold") for text in texts]
    table = tmp_path / "tickets.csv"
    table.write_bytes(as_csv(pairs, "subject,queue"))
    write_tiny_bert(tmp_path / "bert", BertModel)
    words = ["studio", str(table), "--name", "sorter", "--task", "classify", "--model", "words"]
    words += ["--prompt", "subject", "--answer", "queue", "--learning-rate", "0.01"]
    words += ["--batch", "8", "--epochs", "12", "--context", "64", "--target-accuracy", "0.6"]
    with cloud.client() as client:
        client.upload(tmp_path / "bert", name="words", kind=ArtifactKind.MODEL, format="hf")

        def training() -> Job | None:
            named = (job for job in client.jobs() if job.spec.name == "sorter-train")
            return next((job for job in named if job.status.step > 0), None)

        with cloud.started(*words) as command:
            until(lambda: training() is not None)
            kill_rank(client, "sorter-train", -1)
            until(lambda: command.poll() is not None, within_s=120)
        assert command.returncode == 0
        result = json.loads(cloud.karez(*words, "--json").stdout)
        assert len([job for job in client.jobs() if job.spec.name.startswith("sorter-")]) == 3
        (receipt,) = client.receipts(client.job("sorter-train").id)
        assert receipt.code == "exit"
        measured = result["measured"]
        assert measured["model"]["accuracy"] > 0.9
        assert measured["model"]["selective"]["coverage"] > 0.5
        assert measured["base"]["measured_as"].startswith("logistic regression")
        found = json.loads(cloud.karez("classify", "sorter", "red bus", "blue", "--json").stdout)
        assert [one["labels"][0]["label"] for one in found] == ["warm", "cold"]
        assert "warm" in cloud.karez("classify", "sorter", "red car", "--top", "2").stdout
        client.call(calls.stop_service("sorter"))
    sweep = tmp_path / "rates.toml"
    sweep.write_text(SWEEP)
    found = json.loads(cloud.karez("sweeps", "run", str(sweep), "--json").stdout)["trials"]
    assert found[0]["settings"] == {"learning_rate": 0.01}
    own = next(one for one in found if not one["trial"])
    assert found[0]["value"] > own["value"]
    shown = cloud.karez("sweeps", "show", str(sweep)).stdout
    assert "--set learning_rate=0.01" in shown
    beside = cloud.karez("jobs", "compare", "rates-0", "rates-2").stdout
    assert "setting learning_rate" in beside
    assert "model/validation_accuracy" in beside
    assert "setting epochs" not in beside
    cloud.karez("jobs", "tensorboard", "rates-2", "--folder", str(tmp_path / "curves"))
    (file,) = (tmp_path / "curves").rglob("events.out.tfevents.*")
    assert b"loss" in file.read_bytes()


def test_fewer_bits_are_kept_or_refused(cloud: Cloud, tmp_path: Path) -> None:
    """The rows are what the model itself says, so that it has something to lose."""
    model = write_tiny_bpe_model(tmp_path / "tiny.gguf", 256)
    asked = [[{"role": "user", "content": f"{n}?"}] for n in range(40)]
    unknown = {"role": "assistant", "content": "?"}
    said = llamacpp_answers(model, [[*one, unknown] for one in asked], context=128, new_tokens=64)
    rows = [
        {"messages": [*one, {"role": "assistant", "content": text.text or "none"}]}
        for one, text in zip(asked, said, strict=True)
    ]
    (tmp_path / "rows").mkdir()
    for part in ("train", "held_out"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "rows" / f"{part}.jsonl").write_text(text)
    with cloud.client() as client:
        client.upload(model, name="whole", kind=ArtifactKind.MODEL, format="gguf")
        client.upload(
            tmp_path / "rows", name="said", kind=ArtifactKind.DATASET, format="chat-jsonl"
        )
        words = ["models", "quantize", "whole", "--data", "said", "--type", "q4_0"]
        more = ["--name", "kept", "--measure", "f1", "--max-loss", "0.99"]
        assert "times smaller; f1: " in cloud.karez(*words, *more).stdout
        made = client.job("kept").status.outputs["gguf"]
        assert client.artifact(made).spec.format == "gguf"
        refused = cloud.karez(*words, "--name", "refused", "--max-loss", "0.07", check=False)
    assert refused.returncode != 0
    assert "model-q4_0.gguf is not accepted" in refused.stdout + refused.stderr
