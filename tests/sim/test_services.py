"""Services on the real controllers: they scale, move, wait, and give devices back."""

from karez.core.jobs import Job, JobSpec
from karez.core.workloads import EndReason, State, WorkloadId
from karez.serving.replica_controller import CRASH_LIMIT, DRAIN_S
from karez.store.schema import workloads
from tests.sim.fake_cloud import HOUR_S, FakeCloud
from tests.sim.fake_nodes import FakeProcess
from tests.sim.services import Gateway, numbers, processes


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


def test_a_service_has_more_replicas_where_its_answers_begin_late(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=1, max_replicas=4, first_token_s=0.5)
    gateway = Gateway(cloud, name)
    gateway.inflight = 2
    for _ in range(120):
        gateway.begun += 20
        gateway.late += 20 if len(gateway.urls()) < 3 else 0
        gateway.run(1)
    assert len(gateway.urls()) == 3
    cloud.stop(name)
    cloud.run(5.0)
    cloud.check_empty()


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
