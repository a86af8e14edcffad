"""A batch by OpenAI's own client in a whole cloud: killed midway, each line answered once."""

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.jobs import Job
from karez.core.services import ServiceSpec
from tests.contracts.cloud import Cloud, kill_rank, make_cloud, until
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.story
LINES, TOKENS = 600, 100


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = make_cloud(tmp_path_factory.mktemp("batches") / "home", KAREZ_PRELOAD="false")
    made.karez("up")
    yield made
    made.karez("down")


@pytest.fixture(scope="module")
def client(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """A client whose key has limits, and a service that it may call."""
    with cloud.client() as own:
        model = write_tiny_model(tmp_path_factory.mktemp("model") / "m.gguf", 256)
        own.upload(model, name="m", kind=ArtifactKind.MODEL, format="gguf")
        spec = ServiceSpec(name="m", model="m", context_tokens=256, parallel=2)
        own.wait_ready(own.deploy(spec).id)
    key = cloud.karez("keys", "create", "batches", "--tokens-per-minute", "900000").stdout.strip()
    made = openai.OpenAI(base_url=str(cloud.address()["gateway"]), api_key=key, max_retries=0)
    until(lambda: _sees(made))
    yield made
    made.close()


def _sees(client: openai.OpenAI) -> bool:
    try:
        return any(model.id == "m" for model in client.models.list())
    except openai.APIError:
        return False


def write_lines(file: Path, count: int, **more: object) -> Path:
    body = {"model": "m", "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, **more}
    rows = [
        {
            "custom_id": f"row-{number}",
            "method": "POST",
            "url": "/v1/completions",
            "body": {**body, "prompt": f"count {number}"},
        }
        for number in range(count)
    ]
    rows[3]["body"] = {**body, "model": "nothing", "prompt": "x"}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_batch_is_answered_through_a_kill_and_each_line_once(
    cloud: Cloud, client: openai.OpenAI, tmp_path: Path
) -> None:
    lines = write_lines(tmp_path / "asked.jsonl", LINES)
    sent = client.files.create(file=lines, purpose="batch")
    assert (sent.filename, sent.bytes) == ("asked.jsonl", lines.stat().st_size)
    assert client.files.content(sent.id).content == lines.read_bytes()
    batch = client.batches.create(
        input_file_id=sent.id,
        endpoint="/v1/completions",
        completion_window="24h",
        metadata={"for": "us"},
    )
    with cloud.client() as own:
        until(lambda: _done(own.job(batch.id)) >= 5)
        kill_rank(own, batch.id, 0)
        until(lambda: client.batches.retrieve(batch.id).status != "in_progress", within_s=90)
        done = client.batches.retrieve(batch.id)
        assert done.status == "completed", own.job(batch.id).status
        until(lambda: _calls(own) >= LINES - 1)
        assert _calls(own) <= LINES - 1 + 16  # those on their way at the kill are asked again
    assert done.metadata == {"for": "us"}
    counts = done.request_counts
    assert counts is not None
    assert (counts.total, counts.completed, counts.failed) == (LINES, LINES - 1, 1)
    assert done.output_file_id is not None
    assert done.error_file_id is not None
    answers = [json.loads(line) for line in client.files.content(done.output_file_id).iter_lines()]
    assert len({row["custom_id"] for row in answers}) == len(answers) == LINES - 1
    assert all(row["response"]["status_code"] == 200 for row in answers)
    assert {row["response"]["body"]["usage"]["completion_tokens"] for row in answers} == {TOKENS}
    (error,) = client.files.content(done.error_file_id).iter_lines()
    assert json.loads(error)["custom_id"] == "row-3"
    assert json.loads(error)["response"]["status_code"] == 404


def test_a_batch_that_is_cancelled_keeps_what_was_answered(
    client: openai.OpenAI, tmp_path: Path
) -> None:
    lines = write_lines(tmp_path / "long.jsonl", 3000, max_tokens=200)
    sent = client.files.create(file=lines, purpose="batch")
    batch = client.batches.create(
        input_file_id=sent.id, endpoint="/v1/completions", completion_window="24h"
    )

    def counts() -> int:
        found = client.batches.retrieve(batch.id).request_counts
        return 0 if found is None else found.completed

    until(lambda: counts() > 3)
    with pytest.raises(openai.BadRequestError, match="in use"):
        client.files.delete(sent.id)
    client.batches.cancel(batch.id)
    until(lambda: client.batches.retrieve(batch.id).status == "cancelled")
    ended = client.batches.retrieve(batch.id)
    assert ended.output_file_id is not None
    kept = list(client.files.content(ended.output_file_id).iter_lines())
    assert len(kept) > 3
    assert next(iter(client.batches.list(limit=1))).id == batch.id
    client.files.delete(sent.id)
    assert sent.id not in {file.id for file in client.files.list(purpose="batch")}


def _done(job: Job) -> int:
    return 0 if job.status.progress is None else job.status.progress.done


def _calls(own: Client) -> int:
    return sum(row.requests for row in own.usage() if row.what == "m")
