"""What control knows of requests, where the gateway has several processes."""

from dataclasses import replace
from typing import Any

from karez.core.routing import GatewayLoad, ReplicaLoad, ServiceLoad
from karez.serving.service_loads import ServiceLoads

URL = "http://a"


def report(process: int, inflight: int, **counts: Any) -> GatewayLoad:
    return GatewayLoad(
        process=process,
        services=(ServiceLoad(service="s", project="p", inflight=inflight, slots=8, **counts),),
        replicas=(ReplicaLoad(url=URL, inflight=inflight),),
    )


def test_a_replica_has_no_requests_once_all_processes_have_said_so() -> None:
    loads = ServiceLoads(processes=2)
    loads.record(report(0, 0), 10.0)
    assert loads.inflight(URL, 5.0) is None  # control was started, the other has not told yet
    loads.record(report(1, 5), 11.0)
    assert loads.inflight("http://b", 5.0) == 0
    assert loads.inflight(URL, 5.0) == 5
    for second in range(12, 40):
        loads.record(report(0, 0), float(second))
    assert loads.inflight(URL, 11.5) is None  # it is silent, and may have some still
    loads.record(report(1, 0), 40.0)
    assert loads.inflight("http://b", 38.0) == 0


def test_a_silent_process_has_what_it_had() -> None:
    loads = ServiceLoads(processes=2)
    for second in range(10):
        for process in range(2):
            loads.record(report(process, 100), float(second))
    for second in range(10, 40):
        loads.record(report(0, 100), float(second))
    samples = loads.demand("p", "s").samples
    assert {one.inflight for one in samples[1:]} == {200}
    assert len(samples) == 40  # one a second


def test_counts_of_before_are_not_new() -> None:
    """Of control that was started, and of a process that was started or comes back."""
    loads = ServiceLoads(processes=2)
    for second in range(600):
        counts = {"admitted": 10_000 + second, "begun": 10_000 + second, "late": 5_000}
        loads.record(report(0, 1, **counts), float(second))
        if not 100 < second < 200:
            started = 300 if second >= 300 else 0
            told = 2 * (second - started)
            loads.record(report(1, 1, admitted=told, begun=told), float(second))
    assert loads.demand("p", "s").part == 1.0


def test_the_first_replica_wakes_for_requests_of_any_process() -> None:
    loads = ServiceLoads(processes=2)
    idle = ServiceLoad(service="s", project="p", inflight=1, slots=0)
    loads.record(GatewayLoad(process=0, services=(replace(idle, inflight=0),)), 10.0)
    loads.record(GatewayLoad(process=1, services=(idle,)), 10.2)
    assert loads.demand("p", "s").samples[-1].inflight == 1
