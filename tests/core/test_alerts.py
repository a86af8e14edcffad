"""Rules of alerts, and what they tell of: each thing once, and nothing that is not theirs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.alerts import (
    AlertRule,
    Happenings,
    StoredRule,
    alerts_of,
    hours_by_project,
    retry_pause_s,
)
from karez.core.codec import from_json
from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.jobs import Job, JobSpec
from karez.core.nodes import NodeId
from karez.core.prices import NANO
from karez.core.receipts import Receipt
from karez.core.recovery import FaultReport, Severity
from karez.core.workloads import State, Status, WorkloadId

HOOK = "https://chat.example.com/hook"


def rule(*on: str, **more: object) -> AlertRule:
    return from_json(AlertRule, {"name": "r", "to": HOOK, "on": on, **more})


def told(
    of: AlertRule, seen: Happenings, *, created_at: float = 0.0, now: float = 1e4
) -> list[str]:
    stored = StoredRule(rule=of, owner="me", created_at=created_at)
    return [alert.text for alert in alerts_of([stored], seen, now)]


def job(
    name: str,
    state: State,
    *,
    created_at: float = 10.0,
    started_at: float | None = None,
    ended_at: float | None = None,
) -> Job:
    return Job(
        id=WorkloadId(f"job-{name}"),
        spec=JobSpec(name=name, command=("true",)),
        state=state,
        created_at=created_at,
        started_at=started_at,
        ended_at=ended_at,
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"on": ()}, "say on what"),
        ({"to": "nowhere"}, "neither the URL"),
        ({"to": "ftp://x/y"}, "neither the URL"),
        ({"to": "https://h:99999/"}, "neither the URL"),
        ({"to": "http://a..b/"}, "neither the URL"),
        ({"to": f"http://{'a' * 70}.com/"}, "neither the URL"),
        ({"to": "a@b\nBcc: c@d"}, "neither the URL"),
        ({"on": ("waiting",)}, "says waiting"),
        ({"waiting_s": 5.0}, "says waiting"),
        ({"on": ("waiting",), "waiting_s": -1.0}, "must be positive"),
        ({"on": ("budget",), "device_hours": float("inf")}, "finite number"),
        ({"on": ("budget",)}, "says device_hours or spend"),
        ({"spend": 5.0}, "says device_hours or spend"),
        ({"on": ("budget",), "spend": 0.0}, "must be positive"),
        ({"on": ("node",)}, "for project '\\*'"),
        ({"to": "a@example.com", "secret": "S"}, "signs what a webhook"),
        ({"name": "No Name"}, "invalid name"),
    ],
)
def test_a_rule_that_could_tell_nothing_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_json(AlertRule, {"name": "r", "to": HOOK, "on": ("failed",), **fields})


def test_jobs_that_end_are_told_of_by_the_rules_that_they_fit() -> None:
    bad = job("train-a", State.FAILED, started_at=20.0, ended_at=80.0)
    bad = replace(bad, status=Status(reason="crashed: no memory"))
    seen = Happenings(
        ended=[bad, job("test", State.SUCCEEDED, ended_at=90.0), job("x", State.RUNNING)]
    )
    failed = "karez: job train-a (job-train-a, project default) has failed after 1m 00s"
    failed += ": crashed: no memory"
    assert told(rule("failed"), seen) == [failed]
    assert told(rule("ended", jobs="tr*"), seen) == [failed]
    assert len(told(rule("ended", "failed"), seen)) == 2
    assert told(rule("failed", project="other"), seen) == []
    assert told(rule("failed", project="*"), seen) == [failed]
    assert told(rule("failed"), seen, created_at=85.0) == []


def test_recoveries_waits_budgets_and_nodes_are_told_of() -> None:
    receipt = Receipt(
        id="r-1",
        job="job-a",
        generation=2,
        cause="rank 0 ended",
        ranks=(0,),
        rung="in-place",
        source="shm",
        detected_at=100.0,
        decided_at=100.0,
        restored_at=101.0,
        resumed_at=102.0,
        step_before=5,
        step_restored=5,
    )
    a = job("a", State.RUNNING)
    (text,) = told(rule("recovered"), Happenings(receipts=[(a, receipt)]))
    assert "goes on after rank 0 ended: in-place" in text
    waiting = Happenings(
        waiting=[job("w", State.QUEUED), job("new", State.HELD, created_at=9990.0)]
    )
    (text,) = told(rule("waiting", waiting_s=60.0), waiting)
    assert text.startswith("karez: job w (job-w, project default) waits for 2h 46m")
    assert told(rule("waiting", waiting_s=60.0), waiting, created_at=9950.0) == []
    used = Happenings(used_hours={"default": 10.0, "b": 5.0}, month="2026-11")
    assert len(told(rule("budget", device_hours=10.0), used)) == 1
    assert told(rule("budget", device_hours=10.1), used) == []
    assert len(told(rule("budget", device_hours=12.0, project="*"), used)) == 1
    spent = Happenings(spent_nano={"default": 80 * NANO, "b": 5}, month="2026-11")
    (text,) = told(rule("budget", spend=80.0), spent)
    assert "project default has spent 80 in 2026-11" in text
    assert told(rule("budget", spend=80.1, project="*"), spent) == []
    assert len(told(rule("budget", spend=1.0, device_hours=1.0), spent)) == 1
    fault = FaultReport(
        sender="ops", node="n", code="link", level=Severity.MAJOR, detail="link 3", at=5.0
    )
    pool = Happenings(lost={NodeId("m"): 7.0}, faults=[fault])
    texts = told(rule("node", project="*"), pool)
    assert told(rule("node", project="*"), pool, created_at=6.0) == texts[:1]
    assert told(rule("node", project="*"), pool, created_at=8.0) == []
    assert texts == ["karez: node m is lost", "karez: node n: link 3 (major)"]


def test_the_same_thing_has_the_same_id_for_one_rule_only() -> None:
    seen = Happenings(
        ended=[job("a", State.FAILED, ended_at=1.0), job("b", State.FAILED, ended_at=1.0)]
    )
    rules = [
        StoredRule(rule=rule("failed", name=name), owner="me", created_at=0.0) for name in "xy"
    ]
    first, later = alerts_of(rules, seen, 5.0), alerts_of(rules, seen, 500.0)
    assert [alert.id for alert in first] == [alert.id for alert in later]
    assert len({alert.id for alert in first}) == 4


@given(st.integers(1, 40))
def test_attempts_become_rarer_up_to_ten_minutes(attempts: int) -> None:
    assert 5.0 <= retry_pause_s(attempts) <= retry_pause_s(attempts + 1) <= 600.0


def test_device_hours_are_counted_from_the_start_of_the_month() -> None:
    grants = (Grant(node=NodeId("a"), kind=DeviceKind.NPU, devices=((0, 1000), (1, 500))),)
    held = [("p", grants, 0.0, 7200.0), ("p", grants, 7200.0, None), ("q", grants, 0.0, 1.0)]
    assert hours_by_project(held, 3600.0, 10_800.0) == {"p": 3.0, "q": 0.0}
