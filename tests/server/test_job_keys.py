"""Keys with which jobs call models: for nothing else, within limits, as long as the job."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from karez.client import calls
from karez.client.sdk import Client
from karez.core.arrays import ArrayTask
from karez.core.call_limits import CallLimits
from karez.core.errors import BadRequest, NotSignedIn
from karez.core.identity import Key, KeyRotation, KeySpec, Role
from karez.core.jobs import Job, JobSpec
from karez.core.routing import GatewayKey
from karez.core.workloads import WorkloadId
from karez.server.controllers.job_keys import UNKNOWN_S, end_job_keys
from karez.server.services.gateway_table import build_gateway_table
from tests.api import Api

SPEC = JobSpec(name="asks", command=("python", "ask.py"), calls_models=True)
LIMITS = CallLimits(requests_per_minute=7, models=("m",), addresses=("10.0.0.0/8",))


@pytest.fixture
def parent(api: Api) -> tuple[Key, str]:
    return api.cloud.access.new_key(KeySpec(name="user", role=Role.MEMBER, calls=LIMITS))


@pytest.fixture
def client(url: str, parent: tuple[Key, str]) -> Iterator[Client]:
    with Client(url, parent[1]) as made:
        yield made


def keys_of(api: Api) -> list[Key]:
    return [key for key in api.cloud.store.access.keys() if key.made_for]


def known(api: Api) -> dict[str, GatewayKey]:
    table = build_gateway_table(api.cloud.store, api.cloud.clock.now(), {})
    return {key.id: key for key in table.keys}


def test_a_job_finds_a_key_that_calls_models_and_does_nothing_else(
    api: Api, url: str, client: Client, parent: tuple[Key, str]
) -> None:
    job = client.submit(SPEC)
    (own,) = keys_of(api)
    assert (own.made_for, own.parent, own.role) == (job.id, parent[0].id, Role.VIEWER)
    assert own.calls == replace(LIMITS, addresses=())
    found = api.cloud.jobs.keys.variables(job.id)
    assert found["KAREZ_GATEWAY"] == found["OPENAI_BASE_URL"]
    assert found["KAREZ_KEY"] == found["OPENAI_API_KEY"]
    assert own.id in found["KAREZ_KEY"]
    assert known(api)[own.id].counts_as == parent[0].id
    with Client(url, found["KAREZ_KEY"]) as other, pytest.raises(NotSignedIn):
        other.jobs()
    assert own.id not in client.secrets("default")


def test_a_job_that_does_not_ask_gets_none(api: Api, client: Client) -> None:
    job = client.submit(replace(SPEC, calls_models=False))
    assert keys_of(api) == []
    assert api.cloud.jobs.keys.variables(job.id) == {}


def test_the_same_request_makes_one_key(api: Api, client: Client) -> None:
    for _ in range(2):
        client.call(calls.submit(SPEC, "once"))
    assert len(keys_of(api)) == 1


def test_it_ends_with_the_key_of_its_user_and_follows_a_new_one(
    api: Api, client: Client, parent: tuple[Key, str]
) -> None:
    client.submit(SPEC)
    (own,) = keys_of(api)
    with Client(client.address.url, api.admin) as admin:
        with pytest.raises(BadRequest, match="a key of job-"):
            admin.rotate_key(own.id, KeyRotation())
        made = admin.rotate_key(parent[0].id, KeyRotation())
        assert known(api)[own.id].parent == made.id
        admin.revoke_key(made.id)
    assert own.id not in known(api)


def test_it_ends_with_its_job_and_not_before(api: Api, client: Client) -> None:
    job, store, now = client.submit(SPEC), api.cloud.store, api.cloud.clock.now()
    task = ArrayTask(id=WorkloadId("job-y"), index=0)
    array = Job(
        id=WorkloadId("job-y_0"),
        spec=replace(SPEC, array="0"),
        owner="me",
        created_at=now,
        array=task,
    )
    store.workloads.add_array([array])
    for ident, at in (("job-y", now), ("job-new", now), ("job-old", now - UNKNOWN_S)):
        key = Key(
            id=ident[-3:],
            name=ident,
            project="default",
            role=Role.VIEWER,
            digest="",
            created_at=at,
            made_for=ident,
        )
        store.access.add_key(key, sealed=b"x")
    end_job_keys(store.access, store.workloads, now)
    valid = {key.made_for for key in keys_of(api)}
    assert valid == {job.id, "job-y", "job-new"}
    client.cancel(job.id)
    end_job_keys(store.access, store.workloads, now)
    valid = {key.made_for for key in keys_of(api)}
    assert valid == {"job-y", "job-new"}
    assert api.cloud.jobs.keys.variables(job.id) == {}


def test_a_job_whose_user_lost_the_key_finds_none(
    api: Api, client: Client, parent: tuple[Key, str]
) -> None:
    job = client.submit(SPEC)
    api.cloud.store.access.revoke_key(parent[0].id, at=1.0)
    assert api.cloud.jobs.keys.variables(job.id) == {}
