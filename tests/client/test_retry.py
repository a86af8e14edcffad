"""Retries of both clients: for how long, and which calls are sent again."""

import json
from collections.abc import Callable

import httpx
import pytest

from karez.client.drivers import PATIENCE_S, STRANGER_PATIENCE_S
from karez.core.codec import to_json
from karez.core.devices import DeviceKind
from karez.core.errors import NotSignedIn, Unreachable
from karez.core.identity import KeySpec, Role
from karez.core.jobs import Job, JobSpec
from karez.core.nodes import NodeId
from karez.core.services import ServiceSpec
from karez.core.workloads import WorkloadId
from tests.client.conftest import Asker, QuickClient

SPEC = JobSpec(name="x", command=("true",))
JOB = to_json(Job(id=WorkloadId("job-1"), spec=SPEC))


class Flaky:
    """Loses the first so many requests, then answers."""

    def __init__(self, lost: int, answer: object) -> None:
        self.lost = lost
        self.answer = answer
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        if len(self.seen) <= self.lost:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, json=self.answer)


def test_reads_are_retried_until_control_is_back(asker: Asker) -> None:
    cloud = Flaky(4, JOB)
    assert asker.ask(cloud, "job", "x").id == "job-1"
    assert len(cloud.seen) == 5
    assert {str(request.url) for request in cloud.seen} == {"http://cloud/api/v1/jobs/x"}
    assert asker.at == pytest.approx(4 * 0.2)


def test_a_cloud_that_never_answered_is_retried_for_one_second(asker: Asker) -> None:
    with pytest.raises(Unreachable, match="karez does not answer at http://cloud") as caught:
        asker.ask(Flaky(10**6, JOB), "job", "x")
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert STRANGER_PATIENCE_S <= asker.at <= STRANGER_PATIENCE_S + 0.5


def test_a_cloud_that_has_answered_is_retried_longer() -> None:
    cloud = Flaky(0, JOB)
    with QuickClient("http://cloud", "k", transport=httpx.MockTransport(cloud)) as client:
        client.job("x")
        cloud.lost = 10**6
        with pytest.raises(Unreachable):
            client.job("x")
        assert PATIENCE_S <= client.at <= PATIENCE_S + 0.5


@pytest.mark.parametrize(
    ("name", "spec"), [("submit", SPEC), ("deploy", ServiceSpec(name="s", model="m"))]
)
def test_retries_of_submit_and_deploy_reuse_one_idempotency_key(
    asker: Asker, name: str, spec: JobSpec | ServiceSpec
) -> None:
    answer = {**JOB, "spec": to_json(spec)}
    cloud = Flaky(3, answer)
    asker.ask(cloud, name, spec)
    keys = [request.headers["idempotency-key"] for request in cloud.seen]
    assert len(keys) == 4
    assert len(set(keys)) == 1
    again = Flaky(0, answer)
    asker.ask(again, name, spec)
    assert again.seen[0].headers["idempotency-key"] != keys[0]


def test_calls_without_idempotency_key_are_sent_once(asker: Asker) -> None:
    cloud = Flaky(10**6, {})
    with pytest.raises(Unreachable):
        asker.ask(cloud, "create_key", KeySpec(name="ci", role=Role.MEMBER))
    assert len(cloud.seen) == 1
    assert "idempotency-key" not in cloud.seen[0].headers


def test_an_api_error_is_not_retried(asker: Asker) -> None:
    body = {"code": "not-signed-in", "status": 401, "fields": {}}
    seen: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(401, json=body)

    with pytest.raises(NotSignedIn):
        asker.ask(refuse, "jobs")
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("ask", "line"),
    [
        (
            lambda a, c: a.ask(c, "jobs", states=["queued", "running"], limit=3),
            "GET /api/v1/jobs?state=queued&state=running&limit=3",
        ),
        (lambda a, c: a.ask(c, "services", ended=True), "GET /api/v1/services?ended=true"),
        (lambda a, c: a.ask(c, "artifacts"), "GET /api/v1/artifacts"),
        (lambda a, c: a.ask(c, "keys"), "GET /api/v1/keys"),
        (lambda a, c: a.ask(c, "pool"), "GET /api/v1/pool"),
    ],
)
def test_arguments_become_query_parameters(
    asker: Asker, ask: Callable[[Asker, Flaky], object], line: str
) -> None:
    cloud = Flaky(0, [])
    assert ask(asker, cloud) == []
    (request,) = cloud.seen
    target = request.url.raw_path.decode()
    assert f"{request.method} {target}" == line
    assert request.headers["authorization"] == "Bearer k"


def test_a_body_is_the_json_of_its_spec(asker: Asker) -> None:
    cloud = Flaky(0, JOB)
    asker.ask(cloud, "submit", SPEC)
    assert json.loads(cloud.seen[0].content) == to_json(SPEC)
    cloud = Flaky(0, {"id": "n", "state": "draining"})
    assert asker.ask(cloud, "drain", NodeId("n"))["state"] == "draining"
    assert DeviceKind.CPU not in cloud.seen[0].url.path
