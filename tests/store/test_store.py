"""The store's contract, on SQLite and on a real PostgreSQL: one code path, one test."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from karez.core.artifacts import Artifact, ArtifactKind, ArtifactSpec, FileEntry, artifact_id
from karez.core.devices import DeviceKind, Health
from karez.core.errors import AlreadyExists, StartFailed
from karez.core.grants import Grant
from karez.core.identity import Key, Project, Role
from karez.core.jobs import Job, JobSpec
from karez.core.nodes import MaintenanceWindow, NodeId, NodeOverride, NodeState
from karez.core.receipts import Receipt
from karez.core.recovery import CheckpointPart, FaultReport, Transition
from karez.core.services import Service, ServiceSpec
from karez.core.usage import AuditRow, Call, MetricRow
from karez.core.workloads import EndReason, State, Status, WorkloadId
from karez.store.schema import metadata
from karez.store.sql import SqlStore
from tests import postgres
from tests.fakes import cpu_node


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    if postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.story)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'k.db'}"
    else:
        url = request.getfixturevalue("postgres_url")
    made = SqlStore(url)
    yield made
    with made.db.write() as tx:
        for table in reversed(metadata.sorted_tables):
            tx.execute(text(f"DELETE FROM {table.name}"))
    made.close()


def job(ident: str, name: str = "j", **more: object) -> Job:
    spec = JobSpec(name=name, command=("x",))
    return Job(id=WorkloadId(ident), spec=spec, owner="me", created_at=1.0, **more)  # type: ignore[arg-type]


def grant(index: int = 0) -> Grant:
    return Grant(node=NodeId("n"), kind=DeviceKind.CPU, devices=((index, 1000),))


def placed(store: SqlStore, ident: str) -> str:
    """A placed job under a lease; the lease's token."""
    store.workloads.add_job(job(ident))
    store.workloads.place(WorkloadId(ident), [grant()], now=2.0)
    (claimed,) = store.workloads.claim([State.PLACED], owner="c1", now=3.0, lease_s=5.0)
    return claimed[1]


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


def test_a_lease_is_held_by_one_and_fences_the_others(store: SqlStore) -> None:
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


def test_an_end_frees_the_devices_and_is_final(store: SqlStore) -> None:
    token = placed(store, "a")
    done = Status(end=EndReason.DONE, outputs={"model": "art-1"})
    assert store.workloads.end(WorkloadId("a"), token, State.SUCCEEDED, done, now=9.0)
    assert not store.workloads.allocations()
    assert not store.workloads.update(WorkloadId("a"), state=State.RUNNING)
    assert store.workloads.request_stop(WorkloadId("a"), at=10.0) == State.SUCCEEDED
    found = store.workloads.job("a")
    assert found is not None
    assert (found.state, found.status, found.ended_at) == (State.SUCCEEDED, done, 9.0)


def test_a_stop_is_not_overwritten_by_whoever_runs_the_job(store: SqlStore) -> None:
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


def test_who_is_asked_to_yield_waits_again_and_a_stop_wins(store: SqlStore) -> None:
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


def test_waiting_jobs_keep_their_reason(store: SqlStore) -> None:
    store.workloads.add_job(job("a"))
    store.workloads.explain({WorkloadId("a"): "no room"})
    assert store.workloads.queued() == [("a", "job", "no room")]
    found = store.workloads.job("a")
    assert found is not None
    assert found.status.reason == "no room"


def test_a_live_services_name_is_taken(store: SqlStore) -> None:
    def service(ident: str) -> Service:
        spec = ServiceSpec(name="chat", model="m")
        return Service(id=WorkloadId(ident), spec=spec, owner="me", created_at=1.0)

    store.workloads.add_service(service("s1"))
    with pytest.raises(AlreadyExists):
        store.workloads.add_service(service("s2"))
    store.workloads.request_stop(WorkloadId("s1"), at=2.0)
    store.workloads.add_service(service("s3"))
    assert [s.id for s in store.workloads.services(projects=None, states=[State.QUEUED])] == ["s3"]


def test_nodes_come_back_but_a_cordon_stays(store: SqlStore) -> None:
    store.pool.record_nodes([cpu_node("a"), cpu_node("b")], now=1.0)
    store.pool.set_node(NodeId("a"), NodeState.LOST)
    store.pool.set_node(NodeId("b"), NodeState.CORDONED)
    store.pool.record_nodes([cpu_node("a"), cpu_node("b")], now=2.0)
    assert [(n.id, n.state, n.seen_at) for n in store.pool.nodes()] == [
        ("a", NodeState.READY, 2.0),
        ("b", NodeState.CORDONED, 2.0),
    ]
    assert not store.pool.set_node(NodeId("none"), NodeState.READY)


def test_a_step_done_again_replaces_the_older_one_and_never_the_newer(store: SqlStore) -> None:
    def row(generation: int, loss: float) -> MetricRow:
        return MetricRow(step=1, rank=0, loss=loss, at=1.0, generation=generation)

    store.history.add_metrics("j", [row(1, 3.0)])
    store.history.add_metrics("j", [row(2, 2.0), row(2, 2.0)])
    store.history.add_metrics("j", [row(1, 3.0)])
    assert store.history.metrics("j") == [row(2, 2.0)]
    assert store.history.metrics("j", after=1) == []


def test_a_checkpoint_counts_once_every_rank_has_stored_it(store: SqlStore) -> None:
    def add(step: int, rank: int, *, world: int = 2, whole: bool = False) -> CheckpointPart:
        part = CheckpointPart(
            step=step, rank=rank, digest=f"d{step}{rank}", world=world, whole=whole
        )
        store.history.add_checkpoint("j", part)
        return part

    old = [add(5, 0), add(5, 1)]
    add(9, 0)
    newest = store.history.newest_checkpoint
    assert newest("j", [0, 1]) == {0: [old[0]], 1: [old[1]]}
    assert newest("j", [0, 1, 2]) == dict.fromkeys([0, 1, 2], old)  # each cuts its own from these
    add(7, 0, world=3), add(7, 1), add(7, 2)  # of two sizes: no step can be made of them
    assert newest("j", [0, 1]) == {0: [old[0]], 1: [old[1]]}
    add(8, 0, world=4), add(8, 1, world=4)  # two of four shards, stored as their gang ended
    assert newest("j", [0, 1]) == {0: [old[0]], 1: [old[1]]}
    first, second = add(12, 0, whole=True), add(12, 1)
    assert newest("j", [0, 1]) == {0: [first], 1: [second, first]}
    assert newest("j", [0, 1, 2])[2] == [first]  # any number of ranks can start from it
    assert newest("j", [1]) == {1: [second, first]}


def test_the_log_of_recoveries_and_incidents_keep_their_order(store: SqlStore) -> None:
    for n in range(5):
        step = Transition(at=float(n), generation=n, phase="running", body="{}")
        store.history.add_transition("j", step)
        report = FaultReport(sender="dcgm", node=f"n{n % 2}", code="xid-79", at=float(n))
        store.history.add_incident(report)
    assert [t.generation for t in store.history.transitions("j", newest=2)] == [3, 4]
    assert store.history.transitions("other") == []
    assert [r.at for r in store.history.incidents(since=0.5)] == [1.0, 2.0, 3.0, 4.0]
    assert [r.at for r in store.history.incidents(since=0.5, node="n1")] == [1.0, 3.0]


def test_receipts_artifacts_projects_keys_secrets(store: SqlStore) -> None:
    receipt = Receipt(
        id="r",
        job="j",
        generation=2,
        cause="kill",
        ranks=(1,),
        rung="in-place",
        source="shm",
        detected_at=1.0,
        decided_at=1.1,
        restored_at=1.2,
        resumed_at=1.3,
        step_before=4,
        step_restored=3,
    )
    store.history.add_receipt(receipt)
    store.history.add_receipt(receipt)
    assert store.history.receipts("j") == [receipt]
    files = (FileEntry(path="f", sha256="a" * 64, size_bytes=3),)
    spec = ArtifactSpec(name="m", kind=ArtifactKind.MODEL, files=files, facts={"n": 1, "x": None})
    artifact = Artifact(id=artifact_id(spec), spec=spec, owner="me", created_at=1.0)
    assert store.artifacts.add(artifact) == store.artifacts.add(artifact) == artifact
    assert store.artifacts.find("m") == artifact
    assert store.artifacts.list(projects=["default"], kinds=[ArtifactKind.DATASET]) == []
    assert store.artifacts.remove(artifact.id)
    store.access.add_project(Project(name="p"))
    with pytest.raises(AlreadyExists):
        store.access.add_project(Project(name="p"))
    limited = Project(name="p", quota={DeviceKind.NPU: 8000})
    assert store.access.set_quota(limited)
    assert store.access.projects() == [limited]
    key = Key(id="k", name="n", project="p", role=Role.MEMBER, digest="d", created_at=1.0)
    store.access.add_key(key)
    assert store.access.key("k") == key
    assert store.access.revoke_key("k", at=2.0)
    assert not store.access.revoke_key("k", at=3.0)
    store.access.put_secret("p", "s", b"1")
    store.access.put_secret("p", "s", b"2")
    assert store.access.secrets("p") == {"s": b"2"}
    assert store.access.drop_secret("p", "s")


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
        store.usage.add_audit(
            AuditRow(id=0, at=1.0, actor="me", action=str(number), subject="s", outcome="200")
        )
    assert [row.action for row in store.usage.audit(limit=2)] == ["2", "1"]


def test_migrating_twice_is_harmless(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'k.db'}"
    first = SqlStore(url)
    first.workloads.add_job(job("a"))
    second = SqlStore(url)
    assert second.workloads.job("a") is not None
    first.close()
    second.close()


def test_a_database_that_does_not_answer_is_a_typed_error() -> None:
    with pytest.raises(StartFailed, match="database"):
        SqlStore("postgresql+psycopg://nobody@127.0.0.1:1/none")


def test_what_operators_say_and_plan_stays_whatever_nodes_report(store: SqlStore) -> None:
    node = cpu_node("a", 2)
    store.pool.record_nodes([node], now=1.0)
    said = NodeOverride(
        supernode="s1", site="north", labels={"zone": "a"}, health={"cpu:1": Health.SEPARATED}
    )
    assert store.pool.set_override(NodeId("a"), said)
    assert not store.pool.set_override(NodeId("x"), said)
    windows = [
        MaintenanceWindow(starts_at=20.0, ends_at=30.0),
        MaintenanceWindow(starts_at=5.0, ends_at=6.0, reason="firmware"),
    ]
    assert store.pool.set_windows(NodeId("a"), windows)
    store.pool.record_nodes([node], now=2.0)
    (seen,) = store.pool.nodes()
    assert (seen.supernode, seen.site, seen.labels) == ("s1", "north", {"zone": "a"})
    assert [device.health for device in seen.devices] == [Health.HEALTHY, Health.SEPARATED]
    assert [window.starts_at for window in seen.windows] == [5.0, 20.0]
    assert store.pool.overrides() == {NodeId("a"): said}
    assert store.pool.set_override(NodeId("a"), NodeOverride())
    assert store.pool.set_windows(NodeId("a"), [])
    (seen,) = store.pool.nodes()
    assert (seen.supernode, seen.windows) == (node.supernode, ())


def test_sizes_that_were_asked_for_are_kept_until_dropped(store: SqlStore) -> None:
    ident = WorkloadId("j")
    assert store.resize_requests.requested(ident) is None
    store.resize_requests.request(ident, [grant(0)])
    store.resize_requests.request(ident, [grant(0), grant(1)])
    assert store.resize_requests.requested(ident) == (grant(0), grant(1))
    store.resize_requests.drop(ident)
    assert store.resize_requests.requested(ident) is None


def test_what_was_held_is_told_with_its_times(store: SqlStore) -> None:
    store.workloads.add_job(job("j1"))
    assert store.workloads.place(WorkloadId("j1"), [grant(0)], now=10.0)
    assert list(store.usage.held(0.0)) == [("default", (grant(0),), 10.0, None)]


def test_limits_of_an_older_cloud_are_read_under_their_new_names(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    store = SqlStore(url)
    with store.db.write() as tx:
        body = '{"name": "lab", "quota_milli": {"npu": 4000}, "cohort": "c", "lend_milli": {}}'
        tx.execute(text(f"INSERT INTO projects (name, body) VALUES ('lab', '{body}')"))
        tx.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        for table in ("windows", "targets", "marks"):
            tx.execute(text(f"DROP TABLE {table}"))
    store.close()
    again = SqlStore(url)
    (lab,) = (one for one in again.access.projects() if one.name == "lab")
    assert lab.quota == {DeviceKind.NPU: 4000}
    assert again.pool.nodes() == []
    again.close()
