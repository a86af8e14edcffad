"""Jobs that start after others: held, queued in time, or ended with the reason."""

from collections.abc import Iterator

import pytest

from karez.client.sdk import Client
from karez.core.dependencies import AfterCondition, Dependency
from karez.core.errors import BadRequest, NotFound
from karez.core.jobs import Job, JobSpec
from karez.core.workloads import EndReason, State, WorkloadId
from karez.server.controllers.held_jobs import settle_held
from tests.api import Api


@pytest.fixture
def client(api: Api, url: str) -> Iterator[Client]:
    with Client(url, api.admin) as client:
        yield client


def submit(client: Client, name: str, *after: str, when: AfterCondition = AfterCondition.OK) -> Job:
    wanted = tuple(Dependency(job=one, when=when) for one in after)
    return client.submit(JobSpec(name=name, command=("true",), after=wanted))


def end(api: Api, ident: WorkloadId, state: State) -> None:
    """A job ends so, as its controller would have it."""
    store = api.cloud.store.workloads
    assert store.place(ident, [], now=1.0) is not None
    token = dict(store.claim([State.PLACED], owner="t", now=1.0, lease_s=9.0))[ident]
    job = store.job(ident)
    assert job is not None
    assert store.end(ident, token, state, job.status, now=2.0)


def test_a_job_is_queued_when_the_others_have_succeeded(api: Api, client: Client) -> None:
    first, second = submit(client, "first"), submit(client, "second")
    last = submit(client, "last", "first", second.id)
    assert last.state == State.HELD
    assert [one.job for one in last.spec.after] == [first.id, second.id]
    said = f"it waits for {first.id} to succeed (queued), {second.id} to succeed (queued)"
    assert client.job("last").status.reason == said
    assert client.why("last").reason == said
    end(api, first.id, State.SUCCEEDED)
    assert settle_held(api.cloud.store.workloads, 3.0) == 0
    assert client.job("last").status.reason == f"it waits for {second.id} to succeed (queued)"
    end(api, second.id, State.SUCCEEDED)
    assert settle_held(api.cloud.store.workloads, 4.0) == 1
    found = client.job("last")
    assert (found.state, found.status.reason) == (State.QUEUED, "")


def test_what_waits_in_vain_ends_with_the_reason_and_so_does_what_waits_for_it(
    api: Api, client: Client
) -> None:
    first = submit(client, "first")
    second = submit(client, "second", "first")
    third = submit(client, "third", "second")
    always = submit(client, "always", "first", when=AfterCondition.ANY)
    end(api, first.id, State.FAILED)
    for _ in range(2):
        settle_held(api.cloud.store.workloads, 5.0)
    for job, other in ((second, f"{first.id} has failed"), (third, f"{second.id} has cancelled")):
        found = client.job(job.id)
        assert (found.state, found.status.end) == (State.CANCELLED, EndReason.CANCELLED)
        assert found.ended_at == 5.0
        assert found.status.reason == other.replace("has cancelled", "has been cancelled")
    assert client.job(always.id).state == State.QUEUED
    with pytest.raises(BadRequest, match="would never start"):
        submit(client, "late", "first")
    assert submit(client, "late", "first", when=AfterCondition.ANY).state == State.QUEUED
    with pytest.raises(NotFound):
        submit(client, "lost", "nobody")


def test_a_held_job_is_cancelled_at_once(client: Client) -> None:
    submit(client, "first")
    held = submit(client, "held", "first")
    assert client.cancel(held.id).state == State.CANCELLED
