"""Inputs that another job makes: held until it has, and then the artifact."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from karez.client import calls
from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind
from karez.core.errors import BadRequest, NotFound
from karez.core.jobs import Job, JobSpec
from karez.core.workloads import State
from karez.server.controllers.held_jobs import settle_held
from tests.api import Api


@pytest.fixture
def client(api: Api, url: str) -> Iterator[Client]:
    with Client(url, api.admin) as client:
        yield client


def submit(client: Client, name: str, **inputs: str) -> Job:
    return client.submit(JobSpec(name=name, command=("true",), inputs=inputs))


def succeed(api: Api, job: Job, **outputs: str) -> None:
    """A job ends well, as its controller would have it."""
    store = api.cloud.store.workloads
    assert store.place(job.id, [], now=1.0) is not None
    token = dict(store.claim([State.PLACED], owner="t", now=1.0, lease_s=9.0))[job.id]
    found = store.job(job.id)
    assert found is not None
    status = replace(found.status, outputs=outputs)
    assert store.end(job.id, token, State.SUCCEEDED, status, now=2.0)


def test_an_input_is_awaited_and_becomes_the_artifact(
    api: Api, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    rows = client.upload(tmp_path / "rows.jsonl", name="rows", kind=ArtifactKind.DATASET).id
    first = submit(client, "first")
    second = submit(client, "second", data="jobs/first/rows")
    assert second.state == State.HELD
    assert second.spec.inputs == {"data": f"jobs/{first.id}/rows"}
    assert [one.job for one in second.spec.after] == [first.id]
    succeed(api, first, rows=rows)
    assert settle_held(api.cloud.store.workloads, 3.0) == 1
    found = client.job("second")
    assert (found.state, found.spec.inputs) == (State.QUEUED, {"data": rows})
    at_once = submit(client, "third", data=f"jobs/{first.id}/rows")
    assert (at_once.state, at_once.spec.inputs) == (State.QUEUED, {"data": rows})
    client.cancel(found.id)
    client.cancel(at_once.id)
    client.remove_artifact(rows)
    with pytest.raises(NotFound):
        submit(client, "fourth", data=f"jobs/{first.id}/rows")


def test_an_output_that_was_not_made_ends_what_waits_for_it(api: Api, client: Client) -> None:
    first = submit(client, "first")
    second = submit(client, "second", data="jobs/first/rows")
    third = submit(client, "third", data="jobs/second/rows")
    succeed(api, first, model="art-1")
    for _ in range(2):
        settle_held(api.cloud.store.workloads, 3.0)
    found = client.job(second.id)
    assert found.state == State.CANCELLED
    assert found.status.reason == f"{first.id} made no output 'rows', but model"
    assert client.job(third.id).state == State.CANCELLED
    with pytest.raises(BadRequest, match="made no output 'rows', but model"):
        submit(client, "fourth", data="jobs/first/rows")


def test_what_cannot_be_awaited_is_refused(client: Client) -> None:
    submit(client, "first")
    with pytest.raises(NotFound, match="none"):
        submit(client, "second", data="jobs/none/rows")
    with pytest.raises(BadRequest, match="array has no input"):
        client.submit(
            JobSpec(name="x", command=("true",), array="0-3", inputs={"a": "jobs/first/rows"})
        )


def test_the_same_request_again_is_the_same_job(api: Api, client: Client) -> None:
    first = submit(client, "first")
    spec = JobSpec(name="second", command=("true",), inputs={"data": "jobs/first/rows"})
    once = client.call(calls.submit(spec, "k"))
    assert client.call(calls.submit(spec, "k")).id == once.id
    succeed(api, first, rows="art-1")
    settle_held(api.cloud.store.workloads, 3.0)
    again = client.call(calls.submit(spec, "k"))
    assert (again.id, again.state) == (once.id, State.QUEUED)
