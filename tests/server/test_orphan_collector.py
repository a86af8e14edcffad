"""What is not held on a node is ended soon; memory that may still be wanted stays a while."""

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.processes import ProcessInfo
from karez.core.workloads import Allocation, WorkloadId
from karez.server.controllers.orphan_collector import OrphanCollector

A, B, JOB = NodeId("a"), NodeId("b"), WorkloadId("job-1")


def process(*, alive: bool) -> ProcessInfo:
    return ProcessInfo(key="job-1.0.1", workload=JOB, rank=0, epoch=1, pid=1, alive=alive)


def held_on(node: NodeId) -> dict[WorkloadId, Allocation]:
    grant = Grant(node=node, kind=DeviceKind.CPU, devices=((0, 1000),))
    return {JOB: Allocation(workload=JOB, grants=(grant,), epoch=1, since=1.0)}


def test_what_is_held_is_left_alone() -> None:
    orphans = OrphanCollector(start_s=300.0)
    for now in (1.0, 2.0, 1000.0):
        assert orphans.overdue(A, [process(alive=True)], held_on(A), now) == []


def test_a_process_that_is_not_held_is_ended_at_the_second_look() -> None:
    orphans = OrphanCollector(start_s=300.0)
    assert orphans.overdue(A, [process(alive=True)], held_on(B), 1.0) == []
    assert orphans.overdue(A, [process(alive=True)], held_on(B), 2.0) == [JOB]


def test_what_a_job_left_elsewhere_stays_as_long_as_a_start_may_take() -> None:
    orphans = OrphanCollector(start_s=300.0)
    for now in (1.0, 2.0, 300.0):
        assert orphans.overdue(A, [process(alive=False)], held_on(B), now) == []
    assert orphans.overdue(A, [process(alive=False)], held_on(B), 302.0) == [JOB]
    assert orphans.overdue(A, [process(alive=False)], {}, 302.5) == [JOB]  # it is over: at once


def test_who_was_gone_in_between_has_its_time_again() -> None:
    orphans = OrphanCollector(start_s=300.0)
    assert orphans.overdue(A, [process(alive=True)], held_on(B), 1.0) == []
    assert orphans.overdue(A, [], held_on(B), 2.0) == []
    assert orphans.overdue(A, [process(alive=True)], held_on(B), 3.0) == []
