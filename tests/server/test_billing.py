"""Prices, the ledger and usage by the minute through the API."""

from collections.abc import Iterator

import pytest

from karez.client.sdk import Client
from karez.core.device_prices import DevicePrice
from karez.core.devices import DeviceKind
from karez.core.errors import NotAllowed, NotFound
from karez.core.grants import Grant
from karez.core.identity import Project, ProjectLimits, Role
from karez.core.jobs import Job, JobSpec
from karez.core.ledger import Bill, verify
from karez.core.nodes import NodeId
from karez.core.prices import MICRO, NANO, Price
from karez.core.services import Service, ServiceSpec
from karez.core.usage import Call
from karez.core.workloads import State, WorkloadId
from karez.server.services.gateway_table import build_gateway_table
from tests.api import Api
from tests.fakes import FakeClock


def call(number: int, project: str = "default", at: float = 30.0) -> Call:
    return Call(
        id=f"c{number}",
        at=at,
        project=project,
        key_id="k",
        service="chat",
        prompt_tokens=100,
        completion_tokens=10,
        cached_tokens=40,
        status=200,
        duration_s=1.0,
    )


@pytest.fixture
def client(api: Api, url: str) -> Iterator[Client]:
    with Client(url, api.admin) as made:
        made.put_price(Price(model="chat", prompt=2 * MICRO, cached=MICRO, completion=10 * MICRO))
        yield made


def test_each_call_is_a_line_once_at_the_price_of_its_time(api: Api, client: Client) -> None:
    usage = api.cloud.store.usage
    client.add_project(Project(name="other"))
    usage.add_calls([call(1), call(2), call(1)])
    usage.add_calls([call(2), call(3)])  # the gateway was killed before it heard of the first
    client.put_price(Price(model="chat", prompt=4 * MICRO, completion=10 * MICRO))
    usage.add_calls([call(4), call(5, "other")])
    bill = Bill(project="default")
    verify(bill, client.ledger("default"))
    assert bill.lines == 4
    assert bill.cost_nano == 3 * 260_000 + 500_000
    (row,) = [row for row in client.usage() if row.project == "default"]
    assert (row.requests, row.cached_tokens, row.cost_nano) == (4, 160, bill.cost_nano)
    assert [line.seq for line in client.ledger("default", 2)] == [3, 4]
    assert [line.seq for line in client.ledger("other")] == [1]


def test_usage_by_the_minute_is_summed_by_key_and_service(api: Api, client: Client) -> None:
    now = api.cloud.clock.now()
    calls = [call(n, at=now - 60 * (n // 2)) for n in range(6)]
    api.cloud.store.usage.add_calls([*calls, call(9, at=now - 90_000)])
    rows = client.usage_minutes(3600.0, now + 1)
    assert [row.requests for row in rows] == [2, 2, 2]
    assert [row.minute % 60 for row in rows] == [0, 0, 0]
    assert {(row.key_id, row.service, row.prompt_tokens) for row in rows} == {("k", "chat", 200)}
    assert len(client.usage_minutes(100_000.0, now + 1)) == 4
    assert client.usage_minutes(0.0) == []


def test_prices_are_for_admins_of_all_projects_and_a_ledger_for_its_own(
    api: Api, url: str, client: Client
) -> None:
    with Client(url, api.key(Role.ADMIN)) as other:
        with pytest.raises(NotAllowed):
            other.put_price(Price(model="chat"))
        with pytest.raises(NotAllowed):
            other.drop_price("chat")
        assert [price.model for price in other.prices()] == ["chat"]
    client.put_price(Price(model="*", prompt=1))
    client.drop_price("*")
    with pytest.raises(NotFound, match="price"):
        client.drop_price("*")
    assert [price.model for price in client.prices()] == ["chat"]


def test_a_project_that_has_spent_its_limit_takes_no_more_requests_this_month(
    api: Api, client: Client
) -> None:
    store, now = api.cloud.store, api.cloud.clock.now()
    limits = ProjectLimits(spend_nano=500_000)
    client.set_quota(Project(name="default", limits=limits))
    spec = ServiceSpec(name="chat", model="m")
    store.workloads.add_service(Service(id=WorkloadId("svc-1"), spec=spec, created_at=now))
    store.usage.add_calls([call(1, at=now), call(2, at=now - 40 * 86_400)])
    (route,) = build_gateway_table(store, now, {}).routes
    assert route.stopped == ""
    store.usage.add_calls([call(1, at=now), call(3, at=now)])
    assert store.usage.spend(now) == {"default": 520_000}
    (route,) = build_gateway_table(store, now, {}).routes
    assert "Project default has spent its 0.0005 for this month" in route.stopped
    (route,) = build_gateway_table(store, now + 31 * 86_400, {}).routes
    assert route.stopped == ""


def test_device_time_is_in_the_bill_of_its_project(api: Api, url: str, client: Client) -> None:
    store, clock = api.cloud.store, api.cloud.clock
    assert isinstance(clock, FakeClock)
    now = clock.now()
    client.put_device_price(DevicePrice(device="cpu", hour=3 * MICRO))
    grant = Grant(node=NodeId("n"), kind=DeviceKind.CPU, devices=((0, 1000), (1, 1000)))
    spec = JobSpec(name="train", command=("x",))
    store.workloads.add_job(Job(id=WorkloadId("job-1"), spec=spec, owner="me", created_at=now))
    store.workloads.place(WorkloadId("job-1"), [grant], now=now)
    clock.pause(1800.0)
    client.drop_device_price("cpu")
    with pytest.raises(NotFound, match="device price"):
        client.drop_device_price("cpu")
    client.put_device_price(DevicePrice(device="cpu", hour=0))
    assert [price.hour for price in client.device_prices()] == [0]
    bill = Bill(project="default")
    verify(bill, client.ledger("default"))
    assert bill.by_device == {"cpu": 3 * NANO}
    with Client(url, api.key(Role.ADMIN)) as other:
        with pytest.raises(NotAllowed):
            other.put_device_price(DevicePrice(device="cpu", hour=1))
        with pytest.raises(NotAllowed):
            other.drop_device_price("cpu")


def lend(api: Api) -> float:
    """A training of project research gives one of two NPUs to a service; returns when that is."""
    store, now = api.cloud.store, api.cloud.clock.now()
    api.ask("POST", "/projects", api.admin, json={"name": "research"})
    spec = JobSpec(name="train", command=("x",), project="research")
    ident = WorkloadId("job-1")
    store.workloads.add_job(Job(id=ident, spec=spec, owner="me", created_at=now - 900))
    store.workloads.place(ident, [_npus(0, 1)], now=now - 900)
    token = dict(store.workloads.claim([State.PLACED], owner="c", now=now, lease_s=1e9))[ident]
    store.workloads.regrant(ident, token, [_npus(0)], now=now - 600)
    service = Service(id=WorkloadId("svc-1"), spec=ServiceSpec(name="chat", model="m"), owner="me")
    store.workloads.add_service(service)
    (replica,) = store.replicas.add(service, 1, now=now - 603)
    store.workloads.place(replica.id, [_npus(1)], now=now - 599)
    return now


def _npus(*indices: int) -> Grant:
    return Grant(
        node=NodeId("n"), kind=DeviceKind.NPU, devices=tuple((index, 1000) for index in indices)
    )


def test_who_gave_devices_to_whom_is_told_without_names_that_are_not_ones_own(
    api: Api, url: str, client: Client
) -> None:
    now = lend(api)
    found = client.settlement(3600.0, now)
    (given,) = found.handovers
    assert (given.from_project, given.from_name) == ("research", "train")
    assert (given.to_project, given.to_name, given.to_service) == ("default", "chat", True)
    assert (given.kind, given.times) == ("npu", 1)
    figures = [given.device_s, given.idle_max_s, given.waited_max_s or 0.0]
    assert figures == pytest.approx([599, 1, 4])
    assert found.job_device_s == {"npu": pytest.approx(2 * 300 + 600)}
    (used,) = found.services
    assert [used.peak, used.device_s] == pytest.approx([1, 599])
    assert client.settlement(30.0, now - 700).handovers == ()
    (still,) = client.settlement(30.0, now).handovers  # it was given long before
    assert still.device_s == pytest.approx(30)
    with Client(url, api.key(Role.VIEWER, "research")) as other:
        (own,) = other.settlement(3600.0, now).handovers
        assert (own.from_name, own.to_project, own.to_name) == ("train", "", "")
        assert other.settlement(3600.0, now).services == ()
