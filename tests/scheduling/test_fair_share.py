"""Fair share and deadlines: usage moves a project in the queue, within bounds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.devices import DeviceKind
from karez.core.identity import Project
from karez.core.workloads import WorkloadId
from karez.scheduling.queue.fair_share import HALF_LIFE_S, MAX_DOUBLINGS, FairShare
from karez.scheduling.queue.order import (
    AGING_S_PER_DOUBLING,
    SchedulingPolicy,
)
from tests.scheduling.builders import (
    HOUR_S,
    NPU,
    decide,
    engine_with,
    job,
    starts,
)
from tests.scheduling.test_snapshot import gang, node


def test_overusers_rank_lower_and_usage_decays() -> None:
    shares = FairShare(capacity={NPU: 8000})
    projects = {"a": Project(name="a", weight=3), "b": Project(name="b")}
    used = {("a", NPU): 4000, ("b", NPU): 4000}
    shares.advance(HOUR_S, used)
    back = shares.penalty_s(projects, ["a", "b"])
    assert back["a"] == pytest.approx(AGING_S_PER_DOUBLING * math.log2(0.5 / 0.75))
    assert back["b"] == pytest.approx(AGING_S_PER_DOUBLING * math.log2(0.5 / 0.25))
    before = dict(shares.usage_s)
    shares.advance(HOUR_S + HALF_LIFE_S, {})
    assert shares.usage_s["a"] == pytest.approx(before["a"] / 2)
    assert shares.penalty_s(projects, ["a"]) == {}


def test_usage_counts_the_dominant_resource_not_the_sum() -> None:
    shares = FairShare(capacity={NPU: 8000, DeviceKind.CPU: 100_000})
    shares.advance(100.0, {("a", NPU): 4000, ("a", DeviceKind.CPU): 10_000})
    shares.advance(200.0, {("b", DeviceKind.CPU): 50_000, ("b", NPU): 800})
    assert shares.usage_s["a"] == pytest.approx(shares.usage_s["b"], rel=1e-3)


@given(
    spans=st.lists(st.tuples(st.floats(1, 1e6), st.integers(0, 8), st.integers(0, 8)), max_size=10),
    weights=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_the_fair_share_penalty_is_bounded(
    spans: list[tuple[float, int, int]], weights: tuple[int, int]
) -> None:
    shares, now = FairShare(capacity={NPU: 8000}), 0.0
    for span, a, b in spans:
        now += span
        shares.advance(now, {("a", NPU): a * 1000, ("b", NPU): b * 1000})
    projects = {"a": Project(name="a", weight=weights[0]), "b": Project(name="b")}
    back = shares.penalty_s(projects, ["a", "b"])
    assert all(abs(one) <= MAX_DOUBLINGS * AGING_S_PER_DOUBLING for one in back.values())
    if spans and len(back) == 2 and weights == (1, 1) and shares.usage_s.get("a", 0) > 0:
        more = shares.usage_s["a"] > shares.usage_s.get("b", 0)
        assert (back["a"] >= back["b"]) == more or back["a"] == back["b"]


def test_the_project_that_used_less_goes_first() -> None:
    engine = engine_with([node("a", 4)], policy=SchedulingPolicy(fair=True))
    decide(engine, 0.0, job("old", gang(1, 4), project="rich", preemptible=False))
    later = 10 * HOUR_S
    acts = decide(
        engine,
        later,
        job("r", gang(1, 4), later - 2, project="rich"),
        job("q", gang(1, 4), later - 1, project="poor"),
    )
    assert acts == []
    engine.finish(WorkloadId("old"))
    assert starts(engine.decide(later)) == ["q"]


def test_a_deadline_moves_a_workload_ahead_in_time() -> None:
    engine = engine_with([node("a", 4)], policy=SchedulingPolicy())
    decide(engine, 0.0, job("b", gang(1, 4), preemptible=False))
    late = job("d", gang(1, 4), 10.0, expected_s=40 * HOUR_S, deadline_at=43 * HOUR_S)
    decide(engine, 3 * HOUR_S, late, job("n", gang(1, 4), 3 * HOUR_S))
    engine.finish(WorkloadId("b"))
    assert starts(engine.decide(3 * HOUR_S)) == ["d"]
