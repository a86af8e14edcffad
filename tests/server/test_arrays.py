"""Arrays of jobs over the API: added whole, limited, seen and cancelled as one."""

from collections.abc import Iterator

import pytest

from karez.client.sdk import Client
from karez.core.dependencies import AfterCondition, Dependency
from karez.core.errors import BadRequest, NotFound
from karez.core.identity import KeySpec, Project, Role
from karez.core.jobs import Job, JobSpec
from karez.core.workloads import State, WorkloadId
from karez.server.controllers.held_jobs import settle_held
from tests.api import Api


@pytest.fixture
def client(api: Api, url: str) -> Iterator[Client]:
    with Client(url, api.admin) as client:
        yield client


def sweep(client: Client, array: str, *after: Dependency, name: str = "sweep") -> Job:
    return client.submit(JobSpec(name=name, command=("true",), array=array, after=after))


def states(client: Client, array: Job) -> dict[int, State]:
    found = client.jobs(array=array.id)
    return {
        job.array.index: job.state for job in found if job.array and job.array.index is not None
    }


def end(api: Api, ident: str, state: State, at: float = 2.0) -> None:
    store = api.cloud.store.workloads
    assert store.place(WorkloadId(ident), [], now=1.0) is not None
    token = dict(store.claim([State.PLACED], owner="t", now=1.0, lease_s=9.0))[WorkloadId(ident)]
    job = store.job(ident)
    assert job is not None
    assert store.end(WorkloadId(ident), token, state, job.status, now=at)


def test_an_array_is_one_job_in_the_list_and_has_one_for_each_index(client: Client) -> None:
    client.submit(JobSpec(name="other", command=("true",)))
    array = sweep(client, "2-8:3")
    assert (array.state, array.status.reason) == (State.QUEUED, "3 queued")
    assert [job.id for job in client.jobs()] == [array.id, client.job("other").id]
    assert client.job("sweep") == client.job(array.id) == array
    assert states(client, array) == dict.fromkeys((2, 5, 8), State.QUEUED)
    one = client.job(f"{array.id}_5")
    assert one.array is not None
    assert (one.array.id, one.array.index, one.spec.array) == (array.id, 5, "2-8:3")
    assert len(client.jobs(states=[State.QUEUED])) == 4


def test_only_as_many_run_at_once_as_was_asked_for(api: Api, client: Client) -> None:
    array, store = sweep(client, "0-4%2"), api.cloud.store.workloads
    queued, held = State.QUEUED, State.HELD
    assert states(client, array) == {0: queued, 1: queued, 2: held, 3: held, 4: held}
    assert client.job(f"{array.id}_2").status.reason == "of its array, 2 run at once"
    assert settle_held(store, 3.0) == 0
    end(api, f"{array.id}_1", State.SUCCEEDED)
    assert settle_held(store, 3.0) == 1
    assert [one for one, state in states(client, array).items() if state == held] == [4, 3]
    assert client.job(f"{array.id}_2").status.reason == ""
    for index in (0, 2):
        end(api, f"{array.id}_{index}", State.FAILED)
    assert settle_held(store, 4.0) == 2
    seen = client.job(array.id)
    assert seen.state == queued
    said = f"2 queued, 1 succeeded, 2 failed; the first that failed is {array.id}_0"
    assert seen.status.reason == said
    for index in (3, 4):
        end(api, f"{array.id}_{index}", State.SUCCEEDED)
    seen = client.job(array.id)
    assert (seen.state, seen.ended_at) == (State.FAILED, 2.0)


def test_one_cancel_ends_all_that_wait_and_stops_all_that_run(api: Api, client: Client) -> None:
    array, store = sweep(client, "0-3%3"), api.cloud.store.workloads
    end(api, f"{array.id}_0", State.SUCCEEDED)
    assert store.place(WorkloadId(f"{array.id}_1"), [], now=1.0) is not None
    seen = client.cancel("sweep")
    assert seen.state == State.STOPPING
    cancelled = State.CANCELLED
    expected = {0: State.SUCCEEDED, 1: State.STOPPING, 2: cancelled, 3: cancelled}
    assert states(client, array) == expected
    assert client.cancel(array.id) == seen
    assert settle_held(store, 3.0) == 0


def test_arrays_wait_for_others_and_others_for_arrays(api: Api, client: Client) -> None:
    first = client.submit(JobSpec(name="first", command=("true",)))
    array = sweep(client, "0-2%1", Dependency(job="first"))
    last = client.submit(JobSpec(name="last", command=("true",), after=(Dependency(job=array.id),)))
    vain = sweep(client, "0-1", Dependency(job="sweep", when=AfterCondition.OK), name="vain")
    store = api.cloud.store.workloads
    assert set(states(client, array).values()) == {State.HELD}
    assert f"it waits for {first.id} to succeed" in client.why("sweep").reason
    end(api, first.id, State.SUCCEEDED)
    for index in range(3):
        assert settle_held(store, 5.0) == 1
        assert client.job(last.id).state == State.HELD
        end(api, f"{array.id}_{index}", State.FAILED if index == 1 else State.SUCCEEDED)
    assert settle_held(store, 6.0) == 3
    for job in (last, *client.jobs(array=vain.id)):
        assert client.job(job.id).state == State.CANCELLED
        assert client.job(job.id).status.reason == f"{array.id} has failed"


def test_a_job_named_like_an_array_does_not_hide_it(client: Client) -> None:
    array = sweep(client, "0-1")
    client.add_project(Project(name="theirs"))
    impostor = client.submit(JobSpec(name=array.id, command=("true",), project="theirs"))
    assert client.job(array.id) == array
    assert client.cancel(array.id).id == array.id
    assert client.job(impostor.id).state == State.QUEUED


def test_what_is_asked_of_one_job_is_refused_for_an_array_with_the_way(
    client: Client, url: str
) -> None:
    array = sweep(client, "3-5")
    for ask in (client.metrics, client.receipts, client.goodput, client.trace):
        with pytest.raises(BadRequest, match=f"{array.id}_3"):
            ask("sweep")
    with pytest.raises(BadRequest, match="whole array"):
        client.log_names("jobs", array.id)
    assert client.metrics(f"{array.id}_4") == []
    assert client.why("sweep").id == f"{array.id}_3"
    client.add_project(Project(name="theirs"))
    key = client.create_key(KeySpec(name="k", project="theirs", role=Role.ADMIN))
    with Client(url, key.key) as other:
        assert other.jobs() == []
        for call in (other.job, other.cancel):
            with pytest.raises(NotFound):
                call(array.id)
        with pytest.raises(NotFound):
            other.jobs(array=array.id)
