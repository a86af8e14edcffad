"""Usage and the audit log in the store."""

from functools import partial

import pytest

from karez.core.errors import AlreadyExists
from karez.core.identity import Project
from karez.core.usage import AuditRow, Call
from karez.core.workloads import State, Status, WorkloadId
from karez.store.sql import SqlStore
from tests.store.samples import grant, job, placed


def test_calls_are_counted_once_and_device_time_adds_up(store: SqlStore) -> None:
    call = Call(
        id="c",
        at=1.0,
        project="default",
        key_id="k",
        service="s",
        prompt_tokens=5,
        completion_tokens=7,
        status=200,
        duration_s=0.1,
    )
    store.usage.add_calls([call])
    store.usage.add_calls([call])
    token = placed(store, "a")
    store.workloads.end(WorkloadId("a"), token, State.SUCCEEDED, Status(), now=12.0)
    tokens, devices = store.usage.summary(projects=None, now=99.0)
    assert (tokens.requests, tokens.prompt_tokens, tokens.completion_tokens) == (1, 5, 7)
    assert (devices.what, devices.device_seconds, devices.device_kind) == ("j", 10.0, "cpu")
    assert store.usage.summary(projects=["other"], now=99.0) == []


def test_the_audit_log_keeps_its_order(store: SqlStore) -> None:
    for number in range(3):
        with store.usage.auditing(partial(audit_row, action=str(number))):
            pass
    assert [row.action for row in store.usage.audit(limit=2)] == ["2", "1"]


def audit_row(action: str = "x", outcome: str = "200") -> AuditRow:
    return AuditRow(id=0, at=1.0, actor="me", action=action, subject="s", outcome=outcome)


def test_no_change_is_kept_without_its_row(store: SqlStore) -> None:
    answers = iter(["500", "201"])
    with store.usage.auditing(lambda: audit_row(outcome=next(answers))):
        store.workloads.add_job(job("j1"))
        (seen,) = store.usage.audit()  # as after a process that is killed now
        assert seen.outcome == "begun"
        store.workloads.add_job(job("j2"))
    (row,) = store.usage.audit()
    assert (row.outcome, row.id) == ("201", seen.id)


def test_a_change_that_fails_leaves_one_row(store: SqlStore) -> None:
    store.access.add_project(Project(name="p"))
    with store.usage.auditing(audit_row), pytest.raises(AlreadyExists):
        store.access.add_project(Project(name="p"))
    assert [row.outcome for row in store.usage.audit()] == ["200"]
    with store.usage.auditing(lambda: None):
        store.workloads.add_job(job("j1"))
    assert len(store.usage.audit()) == 1


def test_no_long_text_loses_a_row(store: SqlStore) -> None:
    long = AuditRow(id=0, at=1.0, actor="a" * 500, action="b" * 5000, subject="c" * 500, outcome="")
    with store.usage.auditing(lambda: long):
        store.workloads.add_job(job("j1"))
    (row,) = store.usage.audit()
    assert (row.actor, row.action, row.subject) == (long.actor, long.action, long.subject)


def test_held_grants_are_listed_with_their_times(store: SqlStore) -> None:
    store.workloads.add_job(job("j1"))
    assert store.workloads.place(WorkloadId("j1"), [grant(0)], now=10.0)
    assert list(store.usage.held(0.0)) == [("default", (grant(0),), 10.0, None)]
