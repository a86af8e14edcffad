"""Who gave devices to whom, by what each held."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.settlement import HANDOVER_S, OTHERS, Hold, Settlement, seen_by, settle


def hold(
    workload: str,
    devices: list[int],
    since: float,
    until: float | None,
    *,
    ended_at: float | None = None,
    milli: int = 1000,
    asked_at: float | None = None,
) -> Hold:
    is_service = workload.startswith("svc")
    return Hold(
        workload=workload,
        name=workload.partition("-")[0],
        project="shop" if is_service else "research",
        is_service=is_service,
        devices=tuple(("n1", "npu", index, milli) for index in devices),
        since=since,
        until=until,
        asked_at=since if asked_at is None else asked_at,
        ended_at=until if is_service else ended_at,
    )


def day() -> list[Hold]:
    """Training on four devices lends two to a service's second and third replica, and back."""
    return [
        hold("train", [1, 2, 3, 4], 0, 100),
        hold("train", [1, 2], 100, 400),
        hold("train", [1, 2, 3, 4], 405, None),
        hold("svc-0", [0], 0, None),
        hold("svc-1", [3], 102, 400, asked_at=98),
        hold("svc-2", [4], 110, 395, asked_at=98),
    ]


def test_what_was_given_and_had_back() -> None:
    found = settle(day(), 0, 1000)
    back, there = found.handovers
    assert (there.from_project, there.from_name, there.to_project, there.to_name) == (
        "research",
        "train",
        "shop",
        "svc",
    )
    assert there.to_service
    assert (there.times, there.device_s) == (2, 298 + 285)
    assert (there.idle_p50_s, there.idle_max_s) == (6, 10)
    assert (there.waited_p50_s, there.waited_max_s) == (8, 12)
    assert not back.to_service
    assert (back.times, back.device_s, back.idle_max_s) == (2, 2 * 595, 10)
    assert back.waited_p50_s is None
    (service,) = found.services
    assert (service.peak, service.device_s) == (3, 1000 + 298 + 285)
    assert service.spared_s == 3 * 1000 - 1583
    assert found.job_device_s == {"npu": 400 + 600 + 4 * 595}


def test_only_what_is_in_the_time_counts() -> None:
    found = settle(day(), 200, 300)
    (there,) = found.handovers
    assert (there.times, there.device_s) == (2, 200)
    assert found.services[0].peak == 3
    assert found.services[0].spared_s == 0
    assert found.job_device_s == {"npu": 200}


def test_nothing_is_spared_before_a_service_was_there() -> None:
    (used,) = settle([hold("svc-0", [1], 900, None)], 0, 1000).services
    assert (used.device_s, used.spared_s) == (100, 0)


def test_a_job_that_has_ended_gave_nothing_and_old_holds_belong_to_nobody() -> None:
    ended = [hold("train", [1], 0, 100, ended_at=100), hold("svc-0", [1], 101, 200)]
    assert settle(ended, 0, 300).handovers == ()
    late = [hold("train", [1], 0, 100), hold("svc-0", [1], 101 + HANDOVER_S, 200)]
    assert settle(late, 0, 300).handovers == ()


def test_a_preempted_job_gave_its_device() -> None:
    found = settle([hold("train", [1], 0, 100, ended_at=500), hold("svc-0", [1], 101, 200)], 0, 300)
    assert [row.device_s for row in found.handovers] == [99]


def test_a_job_that_kept_its_part_through_a_change_of_size_gave_nothing_of_it() -> None:
    kept = [
        hold("train", [1], 0, 100, milli=500),
        hold("train", [1, 2], 100, None, milli=500),
        hold("svc-0", [1], 101, 201, milli=500),
    ]
    assert settle(kept, 0, 300).handovers == ()


def test_parts_of_a_device_are_given_once() -> None:
    parts = [
        hold("train", [1], 0, 100, milli=500),
        hold("svc-0", [1], 101, 201, milli=300),
        hold("svc-1", [1], 102, 202, milli=300),
    ]
    (row,) = settle(parts, 0, 300).handovers
    assert row.times == 2
    assert row.device_s == pytest.approx(30 + 20)
    two = [
        hold("train", [1], 0, 100, milli=500),
        hold("other", [1], 0, 100, milli=500),
        hold("svc-0", [1], 101, 201),
    ]
    found = settle(two, 0, 300).handovers
    assert {(row.from_name, row.device_s) for row in found} == {("train", 50), ("other", 50)}
    shrunk = [
        hold("train", [1], 0, 100, milli=300),
        hold("train", [1], 100, None, milli=200),
        hold("svc-0", [1], 101, 201, milli=400),
    ]
    assert [row.device_s for row in settle(shrunk, 0, 300).handovers] == [pytest.approx(10)]


def test_what_somebody_had_in_between_was_given_by_that_one() -> None:
    between = [
        hold("train", [1], 0, 100),
        hold("other", [1], 101, 110, ended_at=110),
        hold("svc-0", [1], 111, 200),
    ]
    assert settle(between, 0, 300).handovers == ()


def test_a_replica_that_moved_waited_for_nothing_new() -> None:
    moved = [hold("train", [1], 0, 100), replace(hold("svc-0", [1], 101, 200), asked_at=None)]
    (row,) = settle(moved, 0, 300).handovers
    assert (row.waited_p50_s, row.waited_max_s) == (None, None)


def test_others_have_no_names_and_nothing_of_theirs_alone_is_told() -> None:
    shop = settle(seen_by(day(), ["shop"]), 0, 1000)
    assert {(row.from_project, row.from_name) for row in shop.handovers if row.to_service} == {
        (OTHERS, OTHERS)
    }
    assert shop.services == settle(day(), 0, 1000).services
    assert shop.job_device_s == {}
    nobody = settle(seen_by(day(), ["else"]), 0, 1000)
    assert (nobody.handovers, nobody.services, nobody.job_device_s) == ((), (), {})
    assert seen_by(day(), None) == day()


@given(
    spans=st.lists(
        st.tuples(
            st.sampled_from(["train", "other", "svc-0", "svc-1"]),
            st.integers(0, 3),
            st.integers(0, 500),
            st.integers(1, 300),
        ),
        max_size=30,
    ),
    cut=st.integers(1, 799),
)
def test_two_times_one_after_the_other_have_what_both_have(
    spans: list[tuple[str, int, int, int]], cut: int
) -> None:
    holds = [hold(who, [device], at, at + length) for who, device, at, length in spans]

    def sums(found: Settlement) -> list[float]:
        return [
            sum(row.device_s for row in found.handovers),
            sum(row.device_s for row in found.services),
            sum(found.job_device_s.values()),
        ]

    whole = sums(settle(holds, 0, 800))
    parts = [sums(settle(holds, 0, cut)), sums(settle(holds, cut, 800))]
    assert [sum(pair) for pair in zip(*parts, strict=True)] == pytest.approx(whole)
    assert whole[0] <= whole[1] + whole[2] + 1e-9
