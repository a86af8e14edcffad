"""Services on the real controllers: they scale, move, wait, and give devices back."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from karez.core.jobs import Job, JobSpec
from karez.core.resource_requests import ResourceRequest
from karez.core.routing import GatewayLoad, ReplicaLoad, ServiceLoad
from karez.core.workloads import EndReason, Progress, State, WorkloadId
from karez.serving.readiness import Readiness
from karez.serving.replica_controller import CRASH_LIMIT, DRAIN_S
from karez.serving.rollout import CANARY_S, MOST_CRASHES, NO_ROOM_S, PROGRESS_S, UPDATING
from karez.store.schema import workloads
from tests.sim.fake_cloud import HOUR_S, FakeCloud
from tests.sim.fake_nodes import FakeProcess


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[FakeCloud]:
    made = FakeCloud(tmp_path, nodes=("a", "b"), cores=2)
    yield made
    made.close()


class Gateway:
    """Reports the requests of one service once a second, as the gateway does."""

    def __init__(self, cloud: FakeCloud, service: str) -> None:
        self.cloud, self.service = cloud, service
        self.inflight = 0
        self.kept: dict[str, int] = {}
        """URL of a replica -> requests that it still has."""
        self.counts: dict[str, dict[str, Any]] = {}

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            urls = self.urls()
            load = ServiceLoad(
                service=self.service,
                project="default",
                inflight=self.inflight,
                slots=4 * len(urls),
            )
            known = {**dict.fromkeys(urls, 0), **self.kept}
            replicas = tuple(
                ReplicaLoad(url=url, inflight=n, **self.counts.get(url, {}))
                for url, n in known.items()
            )
            self.cloud.loads.record(
                GatewayLoad(services=(load,), replicas=replicas), self.cloud.timeline.now()
            )
            self.cloud.manager.wake()
            self.cloud.run(1.0)

    def urls(self) -> list[str]:
        ranks = self.cloud.service(self.service).status.ranks
        return [view.url for view in ranks if view.state == "ready"]


def processes(cloud: FakeCloud, service: str) -> list[FakeProcess]:
    every = [one for node in cloud.fabric.all.values() for one in node.processes.values()]
    return [one for one in every if one.is_alive and one.spec.workload.startswith(service)]


def test_a_service_has_as_many_replicas_as_its_requests_need(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=1, max_replicas=4)
    gateway = Gateway(cloud, name)
    gateway.run(5)
    assert len(gateway.urls()) == 1
    gateway.inflight = 8  # 3.6 requests are meant for each replica
    gateway.run(8)
    assert len(gateway.urls()) == 3
    gateway.inflight = 100
    gateway.run(8)
    assert len(gateway.urls()) == 4
    gateway.inflight = 1
    gateway.run(50)
    assert len(gateway.urls()) == 4  # there were more a moment ago
    gateway.run(40)
    assert len(gateway.urls()) == 1
    assert len(processes(cloud, name)) == 1
    assert len(cloud.store.workloads.allocations()) == 1
    cloud.stop(name)
    cloud.run(5.0)
    assert cloud.state(name) == State.CANCELLED
    cloud.check_empty()


def test_a_service_without_requests_ends_its_last_replica_and_wakes(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=1, min_replicas=0, idle_s=120.0)
    gateway = Gateway(cloud, name)
    gateway.run(100)
    assert len(gateway.urls()) == 1
    gateway.run(60)
    assert gateway.urls() == []
    idle = cloud.service(name)
    assert (idle.state, idle.status.ranks) == (State.IDLE, ())
    assert "next request" in idle.status.reason
    assert not cloud.store.workloads.allocations()
    cloud.kill_control()
    gateway.run(20)
    assert cloud.state(name) == State.IDLE
    gateway.inflight = 1
    gateway.run(2)
    assert len(gateway.urls()) == 1
    assert cloud.state(name) == State.RUNNING
    gateway.inflight = 0
    gateway.run(100)
    assert len(gateway.urls()) == 1
    gateway.run(100)
    assert cloud.state(name) == State.IDLE
    cloud.stop(name)
    cloud.run(5.0)
    assert cloud.state(name) == State.CANCELLED


def test_without_word_of_the_gateway_a_service_stays_as_it_is(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=2, min_replicas=0, max_replicas=4, idle_s=60.0)
    cloud.run(HOUR_S)
    assert len(processes(cloud, name)) == 2


def test_a_replica_of_a_lost_node_moves_and_the_others_go_on(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=3)
    cloud.run(5.0)
    before = {one.spec.key: one.home.node.id for one in processes(cloud, name)}
    assert set(before.values()) == {"a", "b"}
    lost = before[f"{name}_0.0.0001"]
    cloud.power_cut(lost, for_s=HOUR_S)
    cloud.run(120.0)
    after = {one.spec.key: one.home.node.id for one in processes(cloud, name)}
    kept = {key: node for key, node in before.items() if node != lost}
    assert kept
    assert kept.items() <= after.items()
    assert cloud.state(name) == State.RUNNING
    cloud.run(2 * HOUR_S)
    assert len(Gateway(cloud, name).urls()) == 3


def test_a_replica_ends_once_its_requests_are_answered(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=2, min_replicas=1)
    gateway = Gateway(cloud, name)
    gateway.run(2)
    one = sorted(processes(cloud, name), key=lambda process: process.spec.key)[-1]
    url = f"http://127.0.0.1/{one.spec.key}"
    gateway.kept = {url: 1}
    gateway.run(80)
    assert gateway.urls() == [f"http://127.0.0.1/{name}_0.0.0001"]  # no more requests go there
    states = [view.state for view in cloud.service(name).status.ranks]
    assert states == ["ready", "draining"]
    gateway.kept = {}
    gateway.run(2)
    assert len(processes(cloud, name)) == 1


def test_a_replica_with_requests_without_an_end_is_let_go_of_in_time(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=2, min_replicas=1)
    gateway = Gateway(cloud, name)
    gateway.run(2)
    gateway.kept = {f"http://127.0.0.1/{one.spec.key}": 1 for one in processes(cloud, name)}
    gateway.run(80 + int(DRAIN_S))
    assert len(processes(cloud, name)) == 1


def test_at_a_peak_elastic_training_lends_devices_and_has_them_back(cloud: FakeCloud) -> None:
    cloud.step_s = 20.0
    cloud.look_every(30.0)
    job = cloud.submit(ranks=1, max=3, steps=150)
    name = cloud.deploy(replicas=1, max_replicas=3)
    gateway = Gateway(cloud, name)
    cloud.run(120)
    assert len(cloud.living(job)) == 3
    gateway.inflight = 8
    gateway.run(45)
    assert len(gateway.urls()) == 3
    assert len(cloud.living(job)) == 1
    gateway.inflight = 0
    gateway.run(110)
    assert len(gateway.urls()) == 1
    cloud.run(120)
    assert len(cloud.living(job)) == 3
    cloud.run_until_ended(job)
    assert cloud.state(job) == State.SUCCEEDED
    assert cloud.gang(job).completed == cloud.totals[job]
    cloud.check()


def test_a_service_whose_replica_never_starts_has_failed(cloud: FakeCloud) -> None:
    begin = cloud.fabric.begin

    def crash(process: FakeProcess) -> None:
        cloud.timeline.after(0.1, lambda: cloud.fabric.end(process, 3))

    cloud.fabric.begin = crash
    name = cloud.deploy(replicas=2)
    cloud.run(120.0)
    cloud.fabric.begin = begin
    failed = cloud.service(name)
    assert (failed.state, failed.status.end) == (State.FAILED, EndReason.START_FAILED)
    assert f"ended with code 3, {CRASH_LIMIT} times in a row" in failed.status.reason
    cloud.check_empty()


def test_a_service_with_a_ready_replica_outlives_one_that_fails(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=1, max_replicas=2)
    gateway = Gateway(cloud, name)
    gateway.run(5)
    begin = cloud.fabric.begin
    cloud.fabric.begin = lambda process: cloud.fabric.end(process, 3)
    gateway.inflight = 8
    gateway.run(60)
    assert cloud.state(name) == State.RUNNING
    assert "ended with code 3" in cloud.service(name).status.reason
    assert len(gateway.urls()) == 1
    cloud.fabric.begin = begin
    gateway.run(60)
    assert len(gateway.urls()) == 2
    assert cloud.store.workloads.by_id(WorkloadId(f"{name}_2")) is not None


def numbers(cloud: FakeCloud, service: str) -> list[tuple[int, str]]:
    return [(view.rank, view.state) for view in cloud.service(service).status.ranks]


def update(cloud: FakeCloud, name: str, **changes: Any) -> None:
    """As the API does it."""
    service = cloud.service(name)
    spec = replace(service.spec, **changes)
    is_other = not spec.runs_as(service.spec)
    doing = Progress(what=UPDATING, of=max(1, len(service.status.ranks)))
    status = replace(service.status, notices=(), progress=doing) if is_other else service.status
    at = cloud.timeline.now() if is_other else None
    assert cloud.store.replicas.set_spec(service, spec, status, at=at)
    cloud.manager.wake()


def test_an_update_replaces_one_replica_after_the_other(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=2)
    gateway = Gateway(cloud, name)
    gateway.run(2)
    update(cloud, name, context_tokens=4096)
    fewest = 2
    for _ in range(int(2 * CANARY_S) + 10):
        gateway.run(1)
        fewest = min(fewest, len(gateway.urls()))
        assert len(processes(cloud, name)) <= 3
    assert fewest == 2
    assert numbers(cloud, name) == [(2, "ready"), (3, "ready")]
    status = cloud.service(name).status
    assert (status.progress, status.notices, status.reason) == (None, (), "")


def test_a_change_of_numbers_replaces_no_replica(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=1)
    gateway = Gateway(cloud, name)
    gateway.run(2)
    update(cloud, name, replicas=3)
    gateway.run(3)
    assert numbers(cloud, name) == [(0, "ready"), (1, "ready"), (2, "ready")]
    update(cloud, name, replicas=1)
    gateway.run(int(DRAIN_S))
    assert numbers(cloud, name) == [(0, "ready")]


@pytest.mark.parametrize("replicas", [1, 4])
def test_without_room_for_one_more_a_replica_makes_way_for_the_new_one(
    cloud: FakeCloud, replicas: int
) -> None:
    name = cloud.deploy(replicas=replicas)
    if replicas == 1:
        cloud.deploy(replicas=3)  # all that is left
    gateway = Gateway(cloud, name)
    gateway.run(2)
    update(cloud, name, context_tokens=4096)
    gateway.run(replicas * int(NO_ROOM_S + CANARY_S + 3))
    assert numbers(cloud, name) == [(n + replicas, "ready") for n in range(replicas)]


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_an_update_whose_answer_to_the_probe_is_wrong_is_undone(
    cloud: FakeCloud, replicas: int
) -> None:
    name = cloud.deploy(replicas=replicas)
    if replicas == 1:
        cloud.deploy(replicas=3)
    gateway = Gateway(cloud, name)
    gateway.run(2)
    cloud.answers[4096] = Readiness(False, "it answered the probe with 'no', not 'yes'")
    update(cloud, name, context_tokens=4096)
    gateway.run(60)
    service = cloud.service(name)
    assert service.spec.context_tokens == 2048
    (notice,) = service.status.notices
    assert "undone: replica" in notice
    assert "not 'yes'" in notice
    assert len(gateway.urls()) == replicas
    gateway.run(60)
    assert cloud.state(name) == State.RUNNING
    assert len(gateway.urls()) == replicas == len(processes(cloud, name))
    assert cloud.service(name).status.notices == (notice,)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"answered": 30, "failed": 6, "answer_s": 30.0}, "6 of 30 answers of the new"),
        ({"answered": 30, "failed": 0, "answer_s": 120.0}, "took 4.00 s, of the others 1.00 s"),
        ({"answered": 30, "failed": 1, "answer_s": 60.0}, ""),
    ],
)
def test_an_update_that_answers_worse_is_undone(
    cloud: FakeCloud, counts: dict[str, Any], said: str
) -> None:
    name = cloud.deploy(replicas=2)
    gateway = Gateway(cloud, name)
    gateway.run(2)
    gateway.counts = {
        url: {"answered": 30, "failed": 1, "answer_s": 30.0} for url in gateway.urls()
    }
    update(cloud, name, context_tokens=4096)
    gateway.run(3)
    assert numbers(cloud, name)[-1] == (2, "ready")
    gateway.counts[gateway.urls()[-1]] = counts
    gateway.run(90)
    service = cloud.service(name)
    if said:
        assert said in service.status.notices[0]
        assert service.spec.context_tokens == 2048
        assert numbers(cloud, name) == [(0, "ready"), (1, "ready")]
    else:
        assert service.status.notices == ()
        assert numbers(cloud, name) == [(2, "ready"), (3, "ready")]


def test_an_update_of_a_service_without_replicas_is_tried_with_the_next_request(
    cloud: FakeCloud,
) -> None:
    name = cloud.deploy(replicas=1, min_replicas=0, idle_s=5.0)
    gateway = Gateway(cloud, name)
    gateway.run(80)
    assert cloud.state(name) == State.IDLE
    cloud.answers[4096] = Readiness(False, "it answered the probe with 'no'")
    update(cloud, name, context_tokens=4096)
    gateway.run(2)
    assert cloud.state(name) == State.IDLE
    gateway.inflight = 1
    gateway.run(5)
    service = cloud.service(name)
    assert (service.state, service.spec.context_tokens) == (State.RUNNING, 2048)
    assert "undone" in service.status.notices[0]


def crash_after(cloud: FakeCloud, service: str, least: int, seconds: float) -> None:
    """Processes of replicas from a number on end a while after they have begun."""
    begin = cloud.fabric.begin

    def crash(process: FakeProcess) -> None:
        begin(process)
        ident = process.spec.workload
        if ident.startswith(service) and int(ident.rpartition("_")[2]) >= least:
            cloud.timeline.after(seconds, lambda: cloud.fabric.end(process, 139))

    cloud.fabric.begin = crash


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_canary_that_crashes_again_and_again_is_not_trusted(
    cloud: FakeCloud, replicas: int
) -> None:
    name = cloud.deploy(replicas=replicas)
    if replicas == 1:
        cloud.deploy(replicas=3)  # there is no room for one more
    gateway = Gateway(cloud, name)
    gateway.run(2)
    crash_after(cloud, name, least=replicas, seconds=3.0)
    update(cloud, name, context_tokens=4096)
    gateway.run(90)
    service = cloud.service(name)
    assert (service.state, service.spec.context_tokens) == (State.RUNNING, 2048)
    assert f"139, {MOST_CRASHES} times" in service.status.notices[0]
    ready = [view.rank for view in service.status.ranks if view.state == "ready"]
    if replicas == 2:
        assert ready == [0, 1]


def test_in_place_answers_are_judged_too(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=1)
    cloud.deploy(replicas=3)
    gateway = Gateway(cloud, name)
    gateway.run(2)
    update(cloud, name, context_tokens=4096)
    gateway.run(int(NO_ROOM_S) + 5)
    assert numbers(cloud, name) == [(1, "ready")]
    gateway.counts[gateway.urls()[0]] = {"answered": 9, "failed": 9, "answer_s": 1.0}
    gateway.run(40)
    service = cloud.service(name)
    assert service.spec.context_tokens == 2048
    assert "9 of 9 answers" in service.status.notices[0]
    assert numbers(cloud, name) == [(2, "ready")]


def test_the_last_replica_does_not_make_way_for_a_larger_one(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=1)
    cloud.deploy(replicas=3)
    gateway = Gateway(cloud, name)
    gateway.run(2)
    update(cloud, name, each=(ResourceRequest(milli=2000),))
    gateway.run(30)
    assert numbers(cloud, name) == [(0, "ready")]
    cloud.run(PROGRESS_S)
    gateway.run(5)
    service = cloud.service(name)
    assert "had no room for 10 minutes" in service.status.notices[0]
    assert numbers(cloud, name) == [(0, "ready")]


def test_a_new_replica_that_is_never_ready_is_given_up(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=1)
    cloud.deploy(replicas=3)
    gateway = Gateway(cloud, name)
    gateway.run(2)
    cloud.answers[4096] = Readiness(False)
    update(cloud, name, context_tokens=4096)
    gateway.run(int(NO_ROOM_S) + 5)
    cloud.look_every(30.0)
    cloud.run(PROGRESS_S)
    gateway.run(30)
    service = cloud.service(name)
    assert "was not ready for 10 minutes" in service.status.notices[0]
    assert gateway.urls() != []


def test_an_undone_update_keeps_the_numbers_and_may_be_tried_again(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=3)
    gateway = Gateway(cloud, name)
    gateway.run(2)
    update(cloud, name, replicas=1, max_replicas=4)
    gateway.run(90)
    cloud.answers[4096] = Readiness(False, "it answered the probe with 'no'")
    update(cloud, name, context_tokens=4096)
    gateway.run(10)
    service = cloud.service(name)
    assert (service.spec.context_tokens, service.spec.range) == (2048, "1..4")
    del cloud.answers[4096]
    update(cloud, name, context_tokens=4096)
    gateway.run(int(CANARY_S) + 10)
    service = cloud.service(name)
    assert (service.spec.context_tokens, service.status.notices) == (4096, ())
    assert numbers(cloud, name) == [(4, "ready")]


def test_a_service_that_cannot_be_read_ends_and_frees_its_devices(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=2)
    cloud.run(5.0)
    with cloud.store.db.write() as tx:
        tx.execute(workloads.update().where(workloads.c.id == name).values(spec="{}"))
    cloud.manager.wake()
    cloud.run(5.0)
    service = cloud.service(name)
    assert (service.state, bool(service.status.reason)) == (State.FAILED, True)
    cloud.check_empty()


def test_a_replica_whose_model_is_gone_fails_instead_of_waiting(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=1)
    cloud.run(5.0)
    (process,) = processes(cloud, name)
    cloud.store.artifacts.remove(cloud.service(name).spec.model)
    cloud.fabric.end(process, -9)
    cloud.run(60.0)
    service = cloud.service(name)
    assert "is gone" in service.status.reason
    assert cloud.store.workloads.users_of("no-such-artifact") == []


def test_a_job_named_like_a_replica_takes_nothing_of_it(cloud: FakeCloud) -> None:
    job = Job(
        id=WorkloadId("job-evil"),
        spec=JobSpec(name="service-1_0", command=("true",)),
        state=State.HELD,
    )
    cloud.store.workloads.add_job(job)
    name = cloud.deploy(replicas=1)
    cloud.run(5.0)
    assert numbers(cloud, name) == [(0, "ready")]


def test_what_changes_a_service_meanwhile_is_not_overwritten(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=1)
    cloud.run(5.0)
    seen = cloud.service(name)
    update(cloud, name, replicas=2)
    spec = replace(seen.spec, replicas=4)
    assert not cloud.store.replicas.set_spec(seen, spec, seen.status, at=None)
    assert not cloud.store.replicas.note_service(seen, State.RUNNING, seen.status, at=1.0)
    assert cloud.service(name).spec.replicas == 2
