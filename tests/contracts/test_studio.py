"""`karez studio`: from a table to a served model, though the command and a rank are killed."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from karez.client.data_sets import job_stem
from karez.core.artifacts import ArtifactKind
from karez.core.jobs import Job
from karez.core.workloads import State
from tests.contracts.cloud import Cloud, make_cloud, until
from tests.studio.tables import as_csv, questions
from tests.tiny_chat import speak_ascii, write_tiny_chat

pytestmark = pytest.mark.story
STEPS = 400
STEM = job_stem("Desk 1")


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    made = make_cloud(tmp_path / "home")
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
        os.kill(client.job(f"{STEM}-tune").status.ranks[-1].pid, signal.SIGKILL)
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
