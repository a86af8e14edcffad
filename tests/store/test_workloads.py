"""Workloads in the store: leases, grants, states, resize requests."""

import threading

import pytest

from karez.core.errors import AlreadyExists
from karez.core.services import Service, ServiceSpec
from karez.core.workloads import EndReason, State, Status, WorkloadId
from karez.store.sql import SqlStore
from tests.store.samples import grant, job, placed


def test_a_job_or_a_service_is_found_by_one_call(store: SqlStore) -> None:
    store.workloads.add_job(job("job-1", "same"))
    store.workloads.add_service(
        Service(
            id=WorkloadId("svc-1"),
            spec=ServiceSpec(name="chat", model="m"),
            owner="me",
            created_at=1.0,
        )
    )
    assert [store.workloads.find(ident) for ident in ("same", "chat", "none")] == [
        store.workloads.job("job-1"),
        store.workloads.service("svc-1"),
        None,
    ]


def test_a_job_is_found_by_id_and_by_newest_name(store: SqlStore) -> None:
    store.workloads.add_job(job("job-1", "same"))
    store.workloads.add_job(job("job-2", "same"))
    assert store.workloads.job("job-1") == job("job-1", "same")
    found = store.workloads.job("same")
    assert found is not None
    assert found.id == "job-2"
    assert store.workloads.job("none") is None
    assert [j.id for j in store.workloads.jobs(projects=None)] == ["job-2", "job-1"]
    assert store.workloads.jobs(projects=["other"]) == []
    assert store.workloads.count_states() == {("job", State.QUEUED): 2}


def test_only_a_queued_job_is_placed_and_only_once(store: SqlStore) -> None:
    store.workloads.add_job(job("a"))
    assert store.workloads.place(WorkloadId("a"), [grant()], now=2.0) == 1
    assert store.workloads.place(WorkloadId("a"), [grant()], now=2.0) is None
    assert store.workloads.allocations()[WorkloadId("a")].grants == (grant(),)


def test_a_lease_has_one_owner_and_an_older_token_changes_nothing(store: SqlStore) -> None:
    token = placed(store, "a")
    assert not store.workloads.claim([State.PLACED], owner="c2", now=7.0, lease_s=5.0)
    assert store.workloads.update(WorkloadId("a"), token=token, state=State.RUNNING, at=4.0)
    store.workloads.renew("c1", now=7.0, lease_s=5.0)
    assert not store.workloads.claim([State.RUNNING], owner="c2", now=9.0, lease_s=5.0)
    ((_, other),) = store.workloads.claim([State.RUNNING], owner="c2", now=13.0, lease_s=5.0)
    assert not store.workloads.update(WorkloadId("a"), token=token, status=Status(reason="stale"))
    assert store.workloads.update(WorkloadId("a"), token=other, status=Status(reason="fresh"))
    found = store.workloads.job("a")
    assert found is not None
    assert (found.status.reason, found.started_at) == ("fresh", 4.0)


def test_a_dead_owners_leases_are_dropped_at_once(store: SqlStore) -> None:
    placed(store, "a")
    store.workloads.drop_leases("c1")
    assert len(store.workloads.claim([State.PLACED], owner="c1", now=3.1, lease_s=5.0)) == 1


def test_claims_by_many_threads_never_overlap(store: SqlStore) -> None:
    for number in range(20):
        store.workloads.add_job(job(f"j{number}"))
        store.workloads.place(WorkloadId(f"j{number}"), [grant()], now=2.0)
    taken: list[str] = []

    def claim(owner: str) -> None:
        found = store.workloads.claim([State.PLACED], owner=owner, now=3.0, lease_s=50.0)
        taken.extend(ident for ident, _ in found)

    threads = [threading.Thread(target=claim, args=(f"c{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(f"j{n}" for n in range(20))


def test_an_end_releases_the_devices_and_is_final(store: SqlStore) -> None:
    token = placed(store, "a")
    done = Status(end=EndReason.DONE, outputs={"model": "art-1"})
    assert store.workloads.end(WorkloadId("a"), token, State.SUCCEEDED, done, now=9.0)
    assert not store.workloads.allocations()
    assert not store.workloads.update(WorkloadId("a"), state=State.RUNNING)
    assert store.workloads.request_stop(WorkloadId("a"), at=10.0) == State.SUCCEEDED
    found = store.workloads.job("a")
    assert found is not None
    assert (found.state, found.status, found.ended_at) == (State.SUCCEEDED, done, 9.0)


def test_the_owner_of_the_lease_does_not_overwrite_a_stop(store: SqlStore) -> None:
    token = placed(store, "a")
    assert store.workloads.request_stop(WorkloadId("a"), at=4.0) == State.STOPPING
    assert not store.workloads.update(WorkloadId("a"), token=token, state=State.RUNNING)
    assert not store.workloads.requeue(WorkloadId("a"), token, Status(), now=5.0)
    found = store.workloads.job("a")
    assert found is not None
    assert found.state == State.STOPPING


def test_a_queued_job_is_cancelled_at_once(store: SqlStore) -> None:
    store.workloads.add_job(job("a"))
    assert store.workloads.request_stop(WorkloadId("a"), at=4.0) == State.CANCELLED
    assert store.workloads.place(WorkloadId("a"), [grant()], now=5.0) is None


def test_new_grants_have_a_new_epoch(store: SqlStore) -> None:
    token = placed(store, "a")
    assert store.workloads.regrant(WorkloadId("a"), token, [grant(1)], now=4.0) == 2
    assert store.workloads.regrant(WorkloadId("a"), "other", [grant(2)], now=4.0) is None
    assert store.workloads.allocations()[WorkloadId("a")].grants == (grant(1),)
    assert store.workloads.requeue(WorkloadId("a"), token, Status(reason="again"), now=5.0)
    assert not store.workloads.allocations()
    assert store.workloads.place(WorkloadId("a"), [grant()], now=6.0) == 3


def test_a_preempted_job_is_queued_again_unless_it_is_stopped(store: SqlStore) -> None:
    token = placed(store, "a")
    work = store.workloads
    ident = WorkloadId("a")
    assert not work.request_preemption(ident)  # it has not begun
    assert work.update(ident, token=token, state=State.RUNNING, at=4.0)
    assert work.request_preemption(ident)
    assert not work.request_preemption(ident)
    assert not work.update(ident, token=token, state=State.RECOVERING, at=5.0)
    assert work.update(ident, token=token, status=Status(step=3), at=5.0)
    found = work.job("a")
    assert found is not None
    assert (found.state, found.status.step) == (State.PREEMPTING, 3)
    assert work.requeue(ident, token, Status(step=3), now=6.0)
    assert work.allocations() == {}
    token = placed_again(store, ident)
    assert work.update(ident, token=token, state=State.RUNNING, at=7.0)
    assert work.request_preemption(ident)
    assert work.request_stop(ident, at=8.0) == State.STOPPING
    assert not work.requeue(ident, token, Status(), now=9.0)


def placed_again(store: SqlStore, ident: WorkloadId) -> str:
    store.workloads.place(ident, [grant()], now=6.5)
    ((_, token),) = store.workloads.claim([State.PLACED], owner="c1", now=6.6, lease_s=5.0)
    return token


def test_a_queued_job_shows_why_it_waits(store: SqlStore) -> None:
    store.workloads.add_job(job("a"))
    store.workloads.explain({WorkloadId("a"): "no room"})
    assert store.workloads.queued() == [("a", "job", "no room")]
    found = store.workloads.job("a")
    assert found is not None
    assert found.status.reason == "no room"


def test_two_live_services_of_a_project_cannot_have_one_name(store: SqlStore) -> None:
    def service(ident: str, project: str = "default") -> Service:
        spec = ServiceSpec(name="chat", model="m", project=project)
        return Service(id=WorkloadId(ident), spec=spec, owner="me", created_at=1.0)

    store.workloads.add_service(service("s1"))
    with pytest.raises(AlreadyExists):
        store.workloads.add_service(service("s2"))
    store.workloads.add_service(service("other", "b"))
    store.workloads.request_stop(WorkloadId("s1"), at=2.0)
    store.workloads.add_service(service("s3"))
    live = store.workloads.services(projects=None, states=[State.QUEUED])
    assert [one.id for one in live] == ["s3", "other"]


def test_a_resize_request_is_kept_until_it_is_dropped(store: SqlStore) -> None:
    ident = WorkloadId("j")
    assert store.resize_requests.requested(ident) is None
    store.resize_requests.request(ident, [grant(0)])
    store.resize_requests.request(ident, [grant(0), grant(1)])
    assert store.resize_requests.requested(ident) == (grant(0), grant(1))
    store.resize_requests.drop(ident)
    assert store.resize_requests.requested(ident) is None
