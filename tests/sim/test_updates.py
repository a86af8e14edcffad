"""Updates of services on the real controllers: one replica after the other, and back."""

from dataclasses import replace
from typing import Any

import pytest

from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import State
from karez.serving.readiness import Readiness
from karez.serving.replica_controller import DRAIN_S
from karez.serving.rollout import CANARY_S, MOST_CRASHES, NO_ROOM_S, PROGRESS_S
from tests.sim.fake_cloud import FakeCloud
from tests.sim.services import Gateway, crash_after, numbers, processes, update


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


def test_what_changes_a_service_meanwhile_is_not_overwritten(cloud: FakeCloud) -> None:
    name = cloud.deploy(replicas=1)
    cloud.run(5.0)
    seen = cloud.service(name)
    update(cloud, name, replicas=2)
    spec = replace(seen.spec, replicas=4)
    assert not cloud.store.replicas.set_spec(seen, spec, seen.status, at=None)
    assert not cloud.store.replicas.note_service(seen, State.RUNNING, seen.status, at=1.0)
    assert cloud.service(name).spec.replicas == 2
