"""How many replicas a service needs."""

from hypothesis import given
from hypothesis import strategies as st

from karez.core.services import ServiceSpec
from karez.scheduling.autoscaling import (
    BUSY,
    CALM_S,
    FRESH_S,
    KEPT_S,
    Demand,
    RequestHistory,
    Sample,
    wanted_replicas,
)

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


def seconds(*inflight: int, busy_at: float = NOW, rise: float | None = 0.0) -> Demand:
    """One sample a second, the last one now."""
    first = NOW - len(inflight) + 1
    samples = tuple(Sample(first + n, count) for n, count in enumerate(inflight))
    return Demand(samples=samples, busy_at=busy_at, rise=rise)


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


@given(st.integers(0, 700), st.integers(1, 64), st.integers(0, 40), st.integers(0, 20))
def test_steady_requests_are_answered_at_once_and_the_number_stays(
    inflight: int, parallel: int, current: int, rise: int
) -> None:
    one = spec(0, 1000, parallel=parallel)
    demand = seconds(*[inflight] * 61, rise=rise)
    wanted = wanted_replicas(one, demand, current=current, now=NOW)
    assert wanted * parallel >= inflight
    again = wanted_replicas(one, demand, current=wanted, now=NOW)
    assert again <= max(wanted, inflight / parallel / BUSY * 1.1 + rise / parallel / BUSY + 1)
    third = wanted_replicas(one, demand, current=again, now=NOW)
    assert third == wanted_replicas(one, demand, current=third, now=NOW)


def test_it_goes_up_at_once_and_down_after_a_calm() -> None:
    one = spec(1, 30)
    assert wanted_replicas(one, seconds(*[0] * 60, *[36] * 10), current=1, now=NOW) == 18
    assert wanted_replicas(one, seconds(*[36] * 60), current=10, now=NOW) == 10
    short = int(CALM_S)
    assert wanted_replicas(one, seconds(*[36] * 20, *[1] * short), current=10, now=NOW) > 5
    calm = seconds(*[36] * 20, *[1] * int(KEPT_S + 1))
    assert wanted_replicas(one, calm, current=10, now=NOW) == 1
    assert wanted_replicas(one, seconds(*[1] * short), current=10, now=NOW) == 10  # too soon to say


def test_room_is_left_for_what_came_while_a_replica_starts() -> None:
    one = spec(1, 100)
    calm, wild = seconds(*[36] * 60), seconds(*[36] * 60, rise=18.0)
    assert wanted_replicas(one, calm, current=1, now=NOW) < wanted_replicas(
        one, wild, current=1, now=NOW
    )
    assert wanted_replicas(one, wild, current=15, now=NOW) == 15
    history = RequestHistory(starts_s=5.0)
    for second in range(200):  # it rises by 30 within 5 s, every 20 s
        history.record(NOW + second, 30.0 * (second % 20 >= 15))
    rise = history.demand().rise
    assert rise == 30.0
    assert RequestHistory().demand().rise is None


def test_small_changes_of_many_replicas_are_left_alone() -> None:
    one = spec(1, 200)
    full = 100 * 4 * BUSY
    for inflight in (full * 0.95, full * 1.05):
        demand = seconds(*[int(inflight)] * 60)
        assert wanted_replicas(one, demand, current=100, now=NOW) == 100
    assert wanted_replicas(one, seconds(*[int(full * 1.3)] * 60), current=100, now=NOW) >= 130


def test_the_last_replica_ends_once_there_was_no_request_for_long_enough() -> None:
    one = spec(0, 3, idle_s=5.0)
    assert wanted_replicas(one, seconds(0, 0, 0, busy_at=NOW - 4), current=1, now=NOW) == 1
    assert wanted_replicas(one, seconds(0, 0, 0, busy_at=NOW - 5), current=1, now=NOW) == 0
    assert wanted_replicas(one, seconds(0, 0, 1), current=0, now=NOW) == 1
    kept = spec(2, 3, idle_s=5.0)
    assert wanted_replicas(kept, seconds(*[0] * 70, busy_at=NOW - 99), current=3, now=NOW) == 2


def test_what_was_said_long_ago_changes_nothing() -> None:
    one = spec(0, 5)
    for age_s in (FRESH_S + 1, KEPT_S + 1):
        stale = Demand(samples=(Sample(NOW - age_s, 100),), busy_at=NOW - age_s)
        assert wanted_replicas(one, stale, current=2, now=NOW) == 2
    assert wanted_replicas(one, Demand(), current=9, now=NOW) == 5


def test_a_service_in_use_is_not_idle_though_its_requests_are_short() -> None:
    one, history = spec(0, 3, idle_s=60.0), RequestHistory()
    for second in range(600):  # one request every 10 s, over before anybody looks
        history.record(NOW + second, 0, 4, admitted=second // 10)
        assert wanted_replicas(one, history.demand(), current=1, now=NOW + second) == 1
    for second in range(600, 700):
        history.record(NOW + second, 0, 4, admitted=59)
        wanted = wanted_replicas(one, history.demand(), current=1, now=NOW + second)
        assert wanted == (1 if second < 650 else 0)


def test_an_idle_service_has_no_replica_for_what_came_before() -> None:
    one = spec(0, 5, idle_s=10.0)
    demand = seconds(*[0] * 60, busy_at=NOW - 11, rise=30.0)
    assert wanted_replicas(one, demand, current=3, now=NOW) == 0
    assert wanted_replicas(one, demand, current=0, now=NOW) == 0
    recent = seconds(*[0] * 60, busy_at=NOW - 9, rise=30.0)
    assert wanted_replicas(one, recent, current=0, now=NOW) == 0
    assert wanted_replicas(one, recent, current=3, now=NOW) >= 1
