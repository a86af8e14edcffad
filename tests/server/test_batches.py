"""Files and batches through OpenAI's own client, without the gateway in between."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import httpx
import openai
import pytest

from karez.core.artifacts import Artifact, ArtifactKind, ArtifactSpec, artifact_id
from karez.core.batches import BATCH_CALLS
from karez.core.errors import BadRequest
from karez.core.identity import Role
from karez.core.jobs import Job, Scalar
from karez.core.workloads import EndReason, Progress, State, Status, WorkloadId
from karez.server.controllers.late_batches import end_late_batches
from karez.studio.settings import check_recipe
from tests.api import Api
from tests.fakes import FakeClock

ROW = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "m"}}
LINES = json.dumps(ROW).encode() + b"\n"


@pytest.fixture
def client(api: Api, url: str) -> Iterator[openai.OpenAI]:
    key = api.key(Role.MEMBER)
    with openai.OpenAI(base_url=f"{url}/api/v1/openai", api_key=key, max_retries=0) as made:
        yield made


def make(client: openai.OpenAI, lines: bytes = LINES) -> str:
    sent = client.files.create(file=("in.jsonl", lines), purpose="batch")
    return client.batches.create(
        input_file_id=sent.id,
        endpoint="/v1/completions",
        completion_window="24h",
        metadata={"for": "us"},
    ).id


def end(api: Api, ident: str, state: State, status: Status) -> None:
    store = api.cloud.store.workloads
    (grants, now) = ((), api.cloud.clock.now())
    store.place(WorkloadId(ident), grants, now=now)
    ((_, token),) = store.claim([State.PLACED], owner="c", now=now, lease_s=60.0)
    assert store.end(WorkloadId(ident), token, state, status, now=now)


def result(api: Api, client: openai.OpenAI, **facts: int) -> str:
    """An output of a batch, as its job would register it."""
    file = client.files.create(file=("output.jsonl", b'{"custom_id": "a"}\n'), purpose="evals")
    found = api.cloud.store.artifacts.find(file.id)
    assert found is not None
    spec = ArtifactSpec(
        name="batch-output",
        kind=ArtifactKind.DATASET,
        files=found.spec.files,
        facts={"purpose": "batch_output", **facts},
    )
    artifact = Artifact(id=artifact_id(spec), spec=spec, created_at=1.0)
    return api.cloud.store.artifacts.add(artifact).id


def test_files_are_sent_listed_read_and_removed(api: Api, client: openai.OpenAI) -> None:
    large = bytes(range(256)) * 20_000
    sent = client.files.create(file=("my data.bin", large), purpose="user_data")
    assert (sent.filename, sent.bytes, sent.purpose) == ("my data.bin", len(large), "user_data")
    batch = client.files.create(file=("in.jsonl", LINES), purpose="batch")
    assert client.files.content(sent.id).content == large
    assert client.files.retrieve(sent.id).id == sent.id
    assert [file.id for file in client.files.list(purpose="batch")] == [batch.id]
    pages = client.files.list(limit=1, order="asc")
    assert {file.id for file in pages} == {sent.id, batch.id}  # two pages
    assert client.files.delete(sent.id).deleted
    with pytest.raises(openai.NotFoundError, match="no file"):
        client.files.retrieve(sent.id)
    with (
        openai.OpenAI(
            base_url=client.base_url, api_key=api.key(Role.MEMBER, "b"), max_retries=0
        ) as other,
        pytest.raises(openai.NotFoundError),
    ):
        other.files.content(batch.id)


def test_forms_that_are_none_are_refused(client: openai.OpenAI) -> None:
    headers = {"authorization": f"Bearer {client.api_key}"}
    with httpx.Client(base_url=str(client.base_url), headers=headers) as plain:
        for sent in (
            plain.post("files", json={"file": "x"}),
            plain.post("files", data={"purpose": "batch"}),
            plain.post("files", data={"purpose": "nonsense"}, files={"file": ("a", b"1")}),
            plain.post("files", files={"file": ("a", b"1"), "other": ("b", b"2")}),
            plain.post(
                "files", content=b"--x", headers={"content-type": "multipart/form-data; boundary=y"}
            ),
        ):
            assert sent.status_code == 400, sent.text
            assert set(sent.json()) == {"error"}
            assert sent.json()["error"]["type"] == "invalid_request_error"
        assert plain.get("files", headers={"authorization": "Bearer x"}).status_code == 401


def test_a_batch_is_a_job_behind_all_others_with_a_key_of_its_own(
    api: Api, client: openai.OpenAI
) -> None:
    ident = make(client)
    batch = client.batches.retrieve(ident)
    assert (batch.status, batch.metadata) == ("in_progress", {"for": "us"})
    assert batch.expires_at == batch.created_at + 86_400
    job = api.cloud.store.workloads.job(ident)
    assert job is not None
    assert (job.spec.recipe, job.spec.priority < 0, job.spec.preemptible) == (
        BATCH_CALLS,
        True,
        True,
    )
    (own,) = [key for key in api.cloud.store.access.keys() if key.made_for == ident]
    assert own.role == Role.VIEWER
    assert [one.id for one in client.batches.list()] == [ident]
    assert client.batches.cancel(ident).status in ("cancelling", "cancelled")
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("nothing")


@pytest.mark.parametrize(
    ("state", "facts", "status"),
    [
        (State.SUCCEEDED, {"completed": 1, "failed": 0, "expired": 0}, "completed"),
        (State.SUCCEEDED, {"completed": 0, "failed": 1, "expired": 1}, "expired"),
        (State.CANCELLED, {}, "cancelled"),
        (State.FAILED, {}, "failed"),
    ],
)
def test_how_a_batch_ended(
    api: Api, client: openai.OpenAI, state: State, facts: dict[str, int], status: str
) -> None:
    ident = make(client)
    output = result(api, client, **facts) if facts else ""
    told = Status(
        reason="its node is lost",
        end=EndReason.NODE_LOST if state == State.FAILED else None,
        outputs={"output": output} if output else {},
        progress=Progress(what="answering", done=1, of=1, failed=1),
    )
    end(api, ident, state, told)
    batch = client.batches.retrieve(ident)
    assert batch.status == status
    assert batch.output_file_id == (output or None)
    assert batch.request_counts is not None
    assert batch.request_counts.failed == facts.get("failed", 1)
    assert getattr(batch, f"{status}_at") is not None
    assert (batch.errors is not None) == (status == "failed")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"endpoint": "/v1/nothing"}, "Endpoint is one of"),
        ({"endpoint": "/v1/embeddings"}, "Line 1: url is '/v1/completions'"),
        ({"completion_window": "9d"}, "completion_window"),
        ({"metadata": {"a": "x" * 600}}, "Metadata"),
        ({"input_file_id": "art-nothing"}, "no file"),
    ],
)
def test_what_is_no_batch_is_refused(
    client: openai.OpenAI, change: dict[str, str], said: str
) -> None:
    sent = client.files.create(file=("in.jsonl", LINES), purpose="batch")
    asked = {"input_file_id": sent.id, "endpoint": "/v1/completions", "completion_window": "24h"}
    headers = {"authorization": f"Bearer {client.api_key}"}
    with httpx.Client(base_url=str(client.base_url), headers=headers) as plain:
        refused = plain.post("batches", json={**asked, **change})
    assert refused.status_code in (400, 404)
    assert said in refused.json()["error"]["message"]
    assert list(client.batches.list()) == []


def test_jobs_that_are_no_batches_are_not_shown_as_such(api: Api, client: openai.OpenAI) -> None:
    job = api.cloud.store.workloads.job(make(client))
    assert job is not None
    plain = replace(job.spec, recipe="", command=("x",), name="plain")
    other = Job(id=WorkloadId("job-x"), spec=plain, owner="me", created_at=2.0)
    api.cloud.store.workloads.add_job(other)
    assert [one.id for one in client.batches.list()] == [job.id]
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("job-x")


def test_the_same_request_makes_one_batch(client: openai.OpenAI) -> None:
    sent = client.files.create(file=("in.jsonl", LINES), purpose="batch")
    made = {
        client.batches.create(
            input_file_id=sent.id,
            endpoint="/v1/completions",
            completion_window="24h",
            extra_headers={"idempotency-key": "once"},
        ).id
        for _ in range(2)
    }
    assert len(made) == 1


def test_a_repeated_key_of_another_batch_is_refused(client: openai.OpenAI) -> None:
    files = [client.files.create(file=(name, LINES), purpose="batch").id for name in ("a", "b")]
    for number, file in enumerate(files):
        with pytest.raises(openai.ConflictError) if number else nullcontext():
            client.batches.create(
                input_file_id=file,
                endpoint="/v1/completions",
                completion_window="24h",
                extra_headers={"idempotency-key": "once"},
            )


def test_a_batch_that_has_waited_too_long_is_expired(api: Api, client: openai.OpenAI) -> None:
    late, store = make(client), api.cloud.store.workloads
    clock = api.cloud.clock
    assert isinstance(clock, FakeClock)
    clock.at += 80_000.0
    other = make(client, LINES + b"\n")
    end_late_batches(store, clock.now())
    assert client.batches.retrieve(late).status == "in_progress"
    clock.at += 10_000.0
    end_late_batches(store, clock.now())
    assert client.batches.retrieve(late).status == "expired"
    assert client.batches.retrieve(other).status == "in_progress"


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": "x"},
        {"metadata": "[]"},
        {"deadline": 1e300},
        {"endpoint": "/x"},
        {"requests": 0},
    ],
)
def test_a_plain_job_cannot_pretend_to_be_a_batch(change: dict[str, Scalar]) -> None:
    settings: dict[str, Scalar] = {
        "requests": 1,
        "endpoint": "/v1/completions",
        "completion_window": "24h",
        "deadline": 9.0,
    }
    check_recipe(BATCH_CALLS, settings, {"requests": "a"})
    with pytest.raises(BadRequest):
        check_recipe(BATCH_CALLS, {**settings, **change}, {"requests": "a"})
