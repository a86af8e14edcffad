"""How many replicas a service needs."""

from hypothesis import given
from hypothesis import strategies as st

from karez.core.services import ServiceSpec
from karez.serving.autoscaling import FRESH_S, LONG_S, Demand, Sample, wanted_replicas

NOW = 10_000.0


def spec(least: int, most: int, *, parallel: int = 4, idle_s: float = 300.0) -> ServiceSpec:
    return ServiceSpec(
        name="s",
        model="m",
        replicas=max(1, least),
        min_replicas=least,
        max_replicas=max(1, most),
        parallel=parallel,
        idle_s=idle_s,
    )


def seconds(*inflight: int, busy_at: float = NOW) -> Demand:
    """One sample a second, the last one now."""
    first = NOW - len(inflight) + 1
    samples = tuple(Sample(first + n, count) for n, count in enumerate(inflight))
    return Demand(samples=samples, busy_at=busy_at)


@given(
    st.integers(0, 5),
    st.integers(0, 20),
    st.lists(st.integers(0, 500), max_size=90),
    st.integers(0, 30),
    st.floats(0, 1000),
)
def test_the_bounds_hold_and_who_has_requests_has_a_replica(
    least: int, more: int, inflight: list[int], current: int, quiet_s: float
) -> None:
    one = spec(least, least + more)
    demand = seconds(*inflight, busy_at=NOW - quiet_s)
    wanted = wanted_replicas(one, demand, current=current, now=NOW)
    assert one.least <= wanted <= one.most
    if inflight and inflight[-1]:
        assert wanted >= 1


@given(st.integers(0, 700), st.integers(1, 64), st.integers(0, 40))
def test_steady_requests_are_answered_at_once_by_replicas_that_are_no_busier_than_meant(
    inflight: int, parallel: int, current: int
) -> None:
    one = spec(0, 1000, parallel=parallel)
    demand = seconds(*[inflight] * 61)
    wanted = wanted_replicas(one, demand, current=current, now=NOW)
    assert wanted * parallel * 0.7 >= inflight - 1e-9
    again = wanted_replicas(one, demand, current=wanted, now=NOW)
    assert again == wanted


def test_it_goes_up_at_once_and_down_after_the_busiest_moment_of_a_minute() -> None:
    one = spec(1, 10)
    up = seconds(*[0] * 60, *[28] * 6)
    assert wanted_replicas(one, up, current=1, now=NOW) == 10
    down = seconds(*[28] * 6, *[1] * 40)
    assert wanted_replicas(one, down, current=10, now=NOW) == 10
    assert wanted_replicas(one, seconds(*[28] * 6, *[1] * 61), current=10, now=NOW) < 10
    assert wanted_replicas(one, seconds(*[1] * 60), current=10, now=NOW) == 1


def test_the_last_replica_ends_once_there_was_no_request_for_long_enough() -> None:
    one = spec(0, 3, idle_s=5.0)
    assert wanted_replicas(one, seconds(0, 0, 0, busy_at=NOW - 4), current=1, now=NOW) == 1
    assert wanted_replicas(one, seconds(0, 0, 0, busy_at=NOW - 5), current=1, now=NOW) == 0
    assert wanted_replicas(one, seconds(0, 0, 1), current=0, now=NOW) == 1
    kept = spec(2, 3, idle_s=5.0)
    assert wanted_replicas(kept, seconds(0, busy_at=NOW - 99), current=3, now=NOW) == 2


def test_what_was_said_long_ago_changes_nothing() -> None:
    one = spec(0, 5)
    for age_s in (FRESH_S + 1, LONG_S + 1):
        stale = Demand(samples=(Sample(NOW - age_s, 100),), busy_at=NOW - age_s)
        assert wanted_replicas(one, stale, current=2, now=NOW) == 2
    assert wanted_replicas(one, Demand(), current=9, now=NOW) == 5
