"""Replicas of services, in both databases."""

from dataclasses import replace

from karez.core.services import Service, ServiceSpec
from karez.core.workloads import INITIAL_STATUS, State, Status, WorkloadId
from karez.store.sql import SqlStore

SPEC = ServiceSpec(name="chat", model="m")
SERVICE = Service(id=WorkloadId("svc-1"), spec=SPEC, owner="me", created_at=1.0)


def service(store: SqlStore) -> Service:
    found = store.workloads.service("svc-1")
    assert found is not None
    return found


def test_replicas_are_numbered_queued_and_listed_until_they_have_ended(store: SqlStore) -> None:
    store.workloads.add_service(SERVICE)
    first = store.replicas.add(SERVICE, 2, now=2.0)
    assert [one.id for one in first] == ["svc-1_0", "svc-1_1"]
    assert [ident for ident, _, _ in store.workloads.queued()] == ["svc-1_0", "svc-1_1"]
    assert store.workloads.request_stop(first[0].id, at=5.0) == State.CANCELLED
    assert [one.id for one in store.replicas.live(ended_since=6.0)] == ["svc-1_1"]
    assert len(store.replicas.live(ended_since=5.0)) == 2
    assert store.replicas.live(service="svc-2", ended_since=0.0) == []
    assert store.replicas.live(projects=["q"], ended_since=0.0) == []
    (third,) = store.replicas.add(SERVICE, 1, now=7.0)
    assert (third.number, third.service) == (2, "svc-1")
    assert store.workloads.by_id(third.id) == third
    assert {one.id for one in store.workloads.users_of("m")} == {"svc-1", "svc-1_1", "svc-1_2"}


def test_only_replicas_and_jobs_are_claimed(store: SqlStore) -> None:
    store.workloads.add_service(SERVICE)
    assert store.replicas.note_service(SERVICE, State.RUNNING, INITIAL_STATUS, at=2.0)
    assert store.workloads.claim([State.RUNNING], owner="me", now=3.0, lease_s=9.0) == []


def test_what_was_read_before_a_change_writes_nothing(store: SqlStore) -> None:
    store.workloads.add_service(SERVICE)
    seen = service(store)
    other = replace(SPEC, context_tokens=64)
    assert store.replicas.set_spec(seen, other, INITIAL_STATUS, at=4.0)
    assert not store.replicas.set_spec(seen, SPEC, INITIAL_STATUS, at=5.0)
    assert not store.replicas.note_service(seen, State.RUNNING, Status(reason="old"), at=5.0)
    now = service(store)
    assert (now.spec, now.updated_at, now.revision, now.status.reason) == (other, 4.0, 1, "")
    assert store.workloads.request_stop(now.id, at=6.0) == State.CANCELLED
    assert not store.replicas.set_spec(now, SPEC, INITIAL_STATUS, at=None)
    assert store.replicas.add(now, 1, now=7.0) == []


def test_the_newest_replica_that_was_ready_as_something_else_is_found(store: SqlStore) -> None:
    store.workloads.add_service(SERVICE)
    (one, _) = store.replicas.add(SERVICE, 2, now=2.0)
    assert store.replicas.last_started(SERVICE.id, replace(SPEC, model="n")) is None
    store.workloads.update(one.id, state=State.RUNNING, at=3.0)
    found = store.replicas.last_started(SERVICE.id, replace(SPEC, model="n"))
    assert found is not None
    assert found.id == one.id
    assert store.replicas.last_started(SERVICE.id, replace(SPEC, replicas=9)) is None
