"""One trace of a job through submit, queue, start, steps, fault and receipt; and where it goes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from karez.cli.remote.traces import render
from karez.core.traces import Span, Trace
from karez.core.workloads import WorkloadId
from karez.server.otlp import OtlpTracer
from karez.server.services.recovery_service import read_trace
from tests.collector import Collector, collecting
from tests.sim.fake_cloud import HOUR_S, FakeCloud


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[FakeCloud]:
    made = FakeCloud(tmp_path, nodes=("a", "b"))
    yield made
    made.close()


def trace_of(cloud: FakeCloud, name: str) -> Trace:
    return read_trace(cloud.store, cloud.job(name), cloud.timeline.now())


def named(trace: Trace, name: str) -> list[Span]:
    return [span for span in trace.spans if span.name == name]


def hours(cloud: FakeCloud, span: Span) -> tuple[float, float | None]:
    """Begin and end, in hours since the job was submitted, to a tenth."""
    began_at = cloud.job("job-1").created_at
    end = None if span.ended_at is None else round((span.ended_at - began_at) / HOUR_S, 1)
    return round((span.began_at - began_at) / HOUR_S, 1), end


def test_a_trace_leads_from_the_submission_over_a_preemption_and_a_fault_to_the_end(
    cloud: FakeCloud,
) -> None:
    job = cloud.submit(ranks=6, steps=12, preemptible=True)
    cloud.run(3.5 * HOUR_S)
    cloud.kill(cloud.living(job)[0])
    cloud.run(3 * HOUR_S)
    other = cloud.submit(ranks=6, steps=2, priority=5)  # `job` makes room for it
    cloud.run(0.5 * HOUR_S)
    waits = trace_of(cloud, job)
    assert [hours(cloud, span) for span in named(waits, "queue")] == [(0.0, 0.0), (6.5, None)]
    cloud.run_until_ended(job, other)
    trace = trace_of(cloud, job)
    (root,) = named(trace, "job")
    assert trace.spans[0] == root
    assert (root.parent, root.ended_at) == ("", cloud.job(job).ended_at)
    assert [hours(cloud, span) for span in named(trace, "run")] == [(0.0, 6.5), (8.5, 14.5)]
    assert [hours(cloud, span) for span in named(trace, "start")] == [(0.0, 1.0), (8.5, 9.5)]
    assert [hours(cloud, span) for span in named(trace, "train")] == [
        (1.0, 3.5),
        (4.5, 6.5),
        (9.5, 14.5),
    ]
    steps = [(s.attributes["from_step"], s.attributes["to_step"]) for s in named(trace, "train")]
    assert steps == [(1, 3), (4, 6), (7, 12)]
    (recovery,) = named(trace, "recovery")
    (receipt,) = cloud.store.history.receipts(WorkloadId(job))
    assert recovery.attributes["receipt"] == receipt.id
    assert recovery.error == "rank 0 killed by signal 9"
    assert recovery.parent == named(trace, "run")[0].id
    parts = [span.name for span in trace.spans if span.parent == recovery.id]
    assert parts == ["confirm", "decide", "restore", "resume"]
    parents = {span.id for span in trace.spans}
    assert all(span.parent in parents for span in trace.spans[1:])
    assert len(parents) == len(trace.spans)
    assert {span.id for span in waits.spans} <= parents  # an id stays while its span goes on


def test_the_time_in_the_queue_before_a_cancellation_is_shown(cloud: FakeCloud) -> None:
    job = cloud.submit(ranks=99, steps=1)
    cloud.run(2 * HOUR_S)
    cloud.stop(job)
    cloud.run(HOUR_S)
    assert [hours(cloud, span) for span in named(trace_of(cloud, job), "queue")] == [(0.0, 2.0)]


def test_a_page_shows_the_spans_and_what_went_wrong(cloud: FakeCloud) -> None:
    job = cloud.submit(ranks=2, steps=4)
    cloud.run(2.5 * HOUR_S)
    cloud.kill(cloud.living(job)[1])
    cloud.run_until_ended(job)
    page = render(trace_of(cloud, job))
    assert page.count("<g><title>") == len(trace_of(cloud, job).spans)
    assert "rank 1 killed by signal 9" in page.partition("What went wrong")[2]
    assert "src=" not in page


def test_a_collector_gets_every_span_once_even_if_it_was_away(
    cloud: FakeCloud,
) -> None:
    with collecting() as collector:
        check_collected(cloud, collector)


def check_collected(cloud: FakeCloud, collector: Collector) -> None:
    tracer = OtlpTracer.to(collector.url, lambda name: trace_of(cloud, name))
    cloud.tracer = tracer
    cloud.connect()
    job = cloud.submit(ranks=2, steps=4)
    cloud.run(2.5 * HOUR_S)
    assert tracer.send()
    assert [name for *_, name in collector.spans] == ["queue", "start"]
    cloud.kill(cloud.living(job)[1])
    collector.refuses = True
    cloud.run(HOUR_S)
    assert not tracer.send()
    collector.refuses = False
    cloud.run_until_ended(job)
    tracer.close()
    trace = trace_of(cloud, job)
    assert collector.paths == {"/v1/traces"}
    assert len(collector.spans) == len(trace.spans)
    assert set(collector.spans) == {(trace.id, s.id, s.parent, s.name) for s in trace.spans}
    assert not tracer._sent
