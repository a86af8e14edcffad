"""`karez.Client` and `karez.AsyncClient`: the same methods, blocking and awaited."""

from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, assert_type

import karez
from karez import AsyncClient, Client, JobSpec
from karez.core.api_models import NewKey
from karez.core.artifacts import Artifact, ArtifactKind
from karez.core.explanations import Explanation
from karez.core.gangs import GangSpec
from karez.core.identity import KeySpec
from karez.core.jobs import Job
from karez.core.nodes import Node
from karez.core.services import Service
from karez.core.workloads import State


def exports() -> None:
    assert_type(karez.__version__, str)
    assert_type(karez.Client(), Client)
    assert_type(karez.AsyncClient(), AsyncClient)
    assert_type(karez.gang("1:4", ["npu=1", "cpu=2"], spares=1), GangSpec)
    assert_type(karez.JobSpec(name="x", command=("true",), gang=karez.gang("2")), JobSpec)
    assert_type(karez.WorkloadKind("train"), karez.WorkloadKind)
    assert_type(karez.ServiceSpec(name="s", model="m").replicas, int)
    karez.Clint  # type: ignore[attr-defined]  # unknown names are refused  # noqa: B018
    try:
        karez.Client().job("x")
    except karez.errors.NotFound as error:
        assert_type(error, karez.errors.NotFound)
        assert_type(error.noun, str)
        assert_type(error.what(), str)


def sync(client: Client, seen: list[Job]) -> None:
    assert_type(client.submit(JobSpec(name="x", command=("true",))), Job)
    assert_type(client.job("x"), Job)
    assert_type(client.jobs(states=[State.RUNNING], limit=3), list[Job])
    assert_type(client.wait("x", watch=seen.append, limit_s=1.0), Job)
    assert_type(client.wait_ready("x"), Service)
    assert_type(client.upload(".", name="x", kind=ArtifactKind.CODE), Artifact)
    assert_type(client.follow_logs("jobs", "x", follow=True), Iterator[tuple[str, str]])
    assert_type(client.pool(), list[Node])
    assert_type(client.why("x"), Explanation)
    assert_type(client.artifact_file("x", "a"), bytes)
    client.job(3)  # type: ignore[arg-type]  # parameters are checked
    client.jobs(limt=3)  # type: ignore[call-arg]  # and their names
    client.nonsense()  # type: ignore[attr-defined]  # and the methods' names


async def awaited(client: AsyncClient, seen: list[Job]) -> None:
    assert_type(client.job("x"), Coroutine[Any, Any, Job])  # type: ignore[unused-coroutine]  # seen
    assert_type(await client.submit(JobSpec(name="x", command=("true",))), Job)
    assert_type(await client.jobs(states=[State.RUNNING]), list[Job])
    assert_type(await client.wait("x", watch=seen.append, limit_s=1.0), Job)
    assert_type(await client.wait_ready("x", limit_s=1.0), Service)
    assert_type(await client.upload(".", name="x", kind=ArtifactKind.CODE), Artifact)
    assert_type(client.follow_logs("jobs", "x", follow=True), AsyncIterator[tuple[str, str]])
    async for name, text in client.follow_logs("jobs", "x", follow=False):
        assert_type((name, text), tuple[str, str])
    assert_type(await client.why("x"), Explanation)
    assert_type(await client.pool(), list[Node])
    await client.job(3)  # type: ignore[arg-type]  # parameters are checked


def keys(client: Client) -> None:
    assert_type(client.create_key(KeySpec(name="ci")), NewKey)
