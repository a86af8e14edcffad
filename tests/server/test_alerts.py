"""Alerts over the API and by the loop of control, to a real webhook: each thing once."""

import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import HTTPServer

import pytest

from karez.client import billing_calls
from karez.client.sdk import Client
from karez.core.alerts import (
    MAX_ATTEMPTS,
    AlertEvent,
    AlertRule,
    Delivery,
    DeliveryState,
    example_alert,
)
from karez.core.errors import BadRequest, NotAllowed, NotFound
from karez.core.identity import KeySpec, Project, Role
from karez.core.jobs import Job, JobSpec
from karez.core.prices import Price
from karez.core.workloads import State
from karez.server.controllers.alerts import Alerter
from tests.api import Api
from tests.drivers.test_alert_senders import Hook, served
from tests.fakes import FakeClock
from tests.server.test_arrays import end
from tests.server.test_billing import call


@pytest.fixture
def client(api: Api, url: str) -> Iterator[Client]:
    with Client(url, api.admin) as client:
        yield client


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Hook, "got", [])
    monkeypatch.setattr(Hook, "status", 200)
    with served(HTTPServer(("127.0.0.1", 0), Hook)) as port:
        yield f"http://127.0.0.1:{port}/hook"


def texts() -> list[str]:
    return [json.loads(body)["text"] for _, _, body in Hook.got]


def clock(api: Api) -> FakeClock:
    made = api.cloud.clock
    assert isinstance(made, FakeClock)
    return made


def failed_job(api: Api, client: Client, name: str) -> Job:
    job = client.submit(JobSpec(name=name, command=("false",)))
    end(api, job.id, State.FAILED, at=clock(api).now())
    return client.job(job.id)


def test_a_rule_is_tried_and_then_tells_of_each_failure_once(
    api: Api, client: Client, hook: str
) -> None:
    rule = AlertRule(name="night", on=(AlertEvent.FAILED,), to=hook, secret="KEY")
    failed_job(api, client, "before")
    clock(api).pause(1.0)
    client.put_alert(rule)
    assert client.try_alert("night").state == DeliveryState.SENT
    assert texts() == ["karez: this tries the alert night of project default"]
    assert Hook.got[0][1]["karez-signature"].startswith("sha256=")
    clock(api).pause(1.0)
    job = failed_job(api, client, "tune")
    for _ in range(3):
        api.alerter.tick()
        clock(api).pause(2.0)
    assert texts()[1:] == [f"karez: job tune ({job.id}, project default) has failed"]
    again = Alerter(
        store=api.cloud.store,
        clock=clock(api),
        webhooks=api.alerter.webhooks,
        mail=api.alerter.mail,
        secret_of=api.alerter.secret_of,
    )
    again.tick()  # of a control that started again
    assert len(texts()) == 2
    assert [d.state for d in client.sent_alerts("night")] == [DeliveryState.SENT] * 2


def test_what_cannot_be_sent_is_tried_again_and_then_given_up_with_the_reason(
    api: Api, client: Client, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.put_alert(AlertRule(name="r", on=(AlertEvent.ENDED,), to=hook))
    failed_job(api, client, "a")
    monkeypatch.setattr(Hook, "status", 503)
    with pytest.raises(BadRequest, match="answered 503"):
        client.try_alert("r")
    api.alerter.tick()
    (waiting,) = client.sent_alerts("r")
    assert (waiting.state, waiting.attempts) == (DeliveryState.WAITING, 1)
    assert "answered 503" in waiting.problem
    api.alerter.tick()
    assert client.sent_alerts("r") == [waiting]  # its pause is not over
    monkeypatch.setattr(Hook, "status", 200)
    clock(api).pause(6.0)
    api.alerter.tick()
    assert client.sent_alerts("r")[0].state == DeliveryState.SENT
    failed_job(api, client, "b")
    monkeypatch.setattr(Hook, "status", 500)
    for _ in range(MAX_ATTEMPTS + 2):
        api.alerter.tick()
        clock(api).pause(601.0)
    newest = client.sent_alerts("r")[0]
    assert (newest.state, newest.attempts) == (DeliveryState.GIVEN_UP, MAX_ATTEMPTS)


def test_arrays_waits_and_budgets_are_told_of_once(api: Api, client: Client, hook: str) -> None:
    client.put_alert(AlertRule(name="e", on=(AlertEvent.FAILED,), to=hook))
    client.put_alert(AlertRule(name="w", on=(AlertEvent.WAITING,), to=hook, waiting_s=60.0))
    budget = AlertRule(name="b", on=(AlertEvent.BUDGET,), to=hook, device_hours=1e-9)
    client.put_alert(budget)
    array = client.submit(JobSpec(name="sweep", command=("true",), array="0-2"))
    for index in (0, 1):
        end(api, f"{array.id}_{index}", State.FAILED, at=clock(api).now())
    api.alerter.tick()
    assert texts() == []
    clock(api).pause(61.0)
    for _ in range(2):
        api.alerter.tick()
    (text,) = texts()
    assert "array sweep" in text
    assert "waits for 1m" in text
    end(api, f"{array.id}_2", State.SUCCEEDED, at=clock(api).now())
    for _ in range(2):
        api.alerter.tick()
    (text,) = texts()[1:]
    assert "array sweep" in text
    assert "1 succeeded, 2 failed" in text


def test_what_a_project_spends_is_told_of_once_a_month(api: Api, client: Client, hook: str) -> None:
    client.put_alert(AlertRule(name="s", on=(AlertEvent.BUDGET,), to=hook, spend=0.0005))
    client.call(billing_calls.put_price(Price(model="chat", prompt=2_000_000)))
    api.cloud.store.usage.add_calls([call(1, at=clock(api).now())])
    api.alerter.tick()
    assert texts() == []
    api.cloud.store.usage.add_calls([call(n, at=clock(api).now()) for n in range(2, 9)])
    clock(api).pause(61.0)
    for _ in range(2):
        api.alerter.tick()
    (text,) = texts()
    assert "project default has spent 0.00" in text
    assert "more than 0.0005" in text


def test_no_alert_is_lost_among_many_and_a_bad_one_stops_no_other(
    api: Api, client: Client, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("karez.server.controllers.alerts.MOST", 3)
    client.put_alert(AlertRule(name="w", on=(AlertEvent.WAITING,), to=hook, waiting_s=60.0))
    longest = client.submit(JobSpec(name="longest", command=("true",)))
    clock(api).pause(61.0)
    for number in range(5):
        client.submit(JobSpec(name=f"new-{number}", command=("true",)))
    api.alerter.tick()
    assert [longest.id in text for text in texts()] == [True]
    client.put_alert(AlertRule(name="e", on=(AlertEvent.ENDED,), to=hook))
    for number in range(7):
        failed_job(api, client, f"end-{number}")
        clock(api).pause(0.01 * (number % 2))
    store = api.cloud.store
    broken = example_alert(AlertRule(name="e", on=(AlertEvent.ENDED,), to=hook), clock(api).now())
    store.alerts.add([replace(broken, rule="removed")])

    send, faults = Alerter.send, [RuntimeError("a fault of ours")]

    def broken_once(self: Alerter, delivery: Delivery, rule: AlertRule) -> None:
        if faults:
            raise faults.pop()
        send(self, delivery, rule)

    monkeypatch.setattr(Alerter, "send", broken_once)
    for _ in range(3):
        api.alerter.tick()
        clock(api).pause(6.0)
    told = {text.split()[2] for text in texts()[1:]}
    assert told == {f"end-{number}" for number in range(7)}
    assert not store.alerts.due(clock(api).now(), limit=10)


def test_rules_are_of_administrators_of_their_project(
    api: Api, client: Client, url: str, hook: str
) -> None:
    rule = AlertRule(name="r", on=(AlertEvent.FAILED,), to=hook)
    client.add_project(Project(name="theirs"))
    made = KeySpec(name="k", project="theirs", role=Role.ADMIN)
    with Client(url, client.create_key(made).key) as other:
        theirs = other.put_alert(
            AlertRule(name="r", on=(AlertEvent.FAILED,), to=hook, project="theirs")
        )
        assert theirs.rule.project == "theirs"
        client.put_alert(rule)
        assert [s.rule.project for s in other.alerts()] == ["theirs"]
        assert [s.rule.project for s in client.alerts()] == ["default", "theirs"]
        nodes = AlertRule(name="n", on=(AlertEvent.NODE,), to=hook, project="*")
        with pytest.raises(NotAllowed):
            other.put_alert(nodes)
        client.put_alert(nodes)
        with pytest.raises(NotFound):
            other.try_alert("n", "theirs")
        job = failed_job(api, client, "mine")
        api.alerter.tick()
        assert texts() == [f"karez: job mine ({job.id}, project default) has failed"]
        other.remove_alert("r", "theirs")
        with pytest.raises(NotFound):
            other.remove_alert("r", "theirs")
    member = KeySpec(name="m", role=Role.MEMBER)
    with Client(url, client.create_key(member).key) as other, pytest.raises(NotAllowed):
        other.put_alert(rule)
