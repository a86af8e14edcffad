"""Hours in which a service has other bounds for its replicas."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.service_schedules import ReplicaSchedule, parse_schedule
from karez.core.services import ServiceSpec
from karez.scheduling.autoscaling import Demand, Sample, wanted_replicas

MONDAY = datetime(2026, 11, 30, tzinfo=UTC)


def at(days: int, hours: float) -> float:
    return (MONDAY + timedelta(days=days, hours=hours)).timestamp()


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("mon-fri 08:00-18:00 3", [(0, 8), (4, 17.9)], [(0, 7.9), (0, 18), (5, 12), (6, 12)]),
        ("22:00-06:00 0..1", [(0, 22), (0, 0), (3, 5.9)], [(0, 6), (3, 21.9)]),
        ("fri 22:00-06:00 1", [(4, 22), (5, 5.9)], [(4, 5), (5, 22), (6, 1)]),
        ("sat-mon 00:00-24:00 2..9", [(5, 0), (6, 23.9), (0, 12), (7, 1)], [(1, 0), (4, 23.9)]),
        ("sun 23:00-00:00 1", [(6, 23.5)], [(7, 0), (6, 0)]),
    ],
)
def test_hours_hold_on_their_days(
    text: str, inside: list[tuple[int, float]], outside: list[tuple[int, float]]
) -> None:
    schedule = parse_schedule(text)
    assert all(schedule.holds_at(at(*one)) for one in inside)
    assert not any(schedule.holds_at(at(*one)) for one in outside)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "08:00-18:00",
        "mun 08:00-18:00 2",
        "08:00-18:00 4..2",
        "8-18 2",
        "24:00-25:00 1",
        "mon-fri 08:00-18:00 0",
        "08:00-18:00 1..x",
    ],
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="schedule"):
        parse_schedule(text)


@given(
    first=st.integers(0, 6),
    length=st.integers(1, 7),
    begin=st.integers(0, 1439),
    end=st.integers(0, 1440),
    least=st.integers(0, 9),
    more=st.integers(1, 9),
)
def test_a_schedule_is_read_as_it_is_shown(
    first: int, length: int, begin: int, end: int, least: int, more: int
) -> None:
    days = tuple(day % 7 for day in range(first, first + length))
    shown = ReplicaSchedule(
        days=days if length < 7 else tuple(range(7)),
        begin=begin,
        end=end,
        min_replicas=least,
        max_replicas=least + more,
    )
    assert parse_schedule(shown.text) == shown


def test_days_that_are_not_in_a_row_are_several_schedules() -> None:
    with pytest.raises(ValueError, match="one after the other"):
        ReplicaSchedule(days=(0, 2), begin=0, end=60, min_replicas=1, max_replicas=1)


def test_a_service_has_the_bounds_of_its_hours() -> None:
    schedules = (parse_schedule("mon-fri 08:00-18:00 3..10"), parse_schedule("12:00-13:00 5"))
    spec = ServiceSpec(name="s", model="m", min_replicas=0, max_replicas=2, schedules=schedules)
    assert spec.bounds_at(at(0, 3)) == (0, 2)
    assert spec.bounds_at(at(0, 9)) == (3, 10)
    assert spec.bounds_at(at(0, 12.5)) == (5, 10)
    assert spec.bounds_at(at(6, 12.5)) == (5, 5)
    assert spec.highest == 10
    with pytest.raises(ValueError, match="at most 32 schedules"):
        ServiceSpec(name="s", model="m", schedules=schedules * 17)


def test_replicas_are_there_when_the_hours_begin_and_end_with_them() -> None:
    spec = ServiceSpec(
        name="s",
        model="m",
        min_replicas=0,
        max_replicas=4,
        schedules=(parse_schedule("08:00-18:00 3..10"),),
    )

    def wanted(now: float, current: int, inflight: float = 0.0) -> int:
        samples = [Sample(now - age, inflight) for age in range(70, -1, -1)]
        demand = Demand(samples=samples, busy_at=0.0, rise=0.0)
        return wanted_replicas(spec, demand, current=current, now=now)

    assert wanted(at(0, 7.9), 0) == 0
    assert wanted(at(0, 8), 0) == 3
    assert wanted(at(0, 9), 8, inflight=4 * 8 * 0.95) == 8
    assert wanted(at(0, 18), 8, inflight=4 * 8 * 0.95) == 4
    assert wanted(at(0, 19), 4) == 0
    silent = Demand()
    assert wanted_replicas(spec, silent, current=1, now=at(0, 8)) == 3
