"""Limits of requests and tokens in any minute."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.call_limits import CallLimits
from karez.serving.call_meter import CallMeter, tokens_asked
from karez.serving.minute_window import MINUTE_S, STEPS_A_SECOND

PAUSES = st.lists(
    st.one_of(st.floats(0, 0.5), st.floats(0, 20), st.just(0.0)), min_size=1, max_size=200
)


@given(most=st.integers(1, 30), pauses=PAUSES)
def test_no_minute_has_more_requests_than_the_limit_and_nobody_below_it_is_refused(
    most: int, pauses: list[float]
) -> None:
    meter, now = CallMeter(limits=CallLimits(requests_per_minute=most)), 1000.0
    taken: deque[float] = deque()
    for pause in pauses:
        now += pause
        wait_s = meter.take(1, now)
        last_minute = sum(at > now - MINUTE_S for at in taken)
        if wait_s == 0:
            assert last_minute < most
            taken.append(now)
        else:
            with_a_step = sum(at > now - MINUTE_S - 2 / STEPS_A_SECOND for at in taken)
            assert with_a_step >= most
            assert meter.take(1, now + wait_s + 1e-6) == 0, "the wait is long enough"
            taken.append(now + wait_s + 1e-6)
            now += wait_s + 1e-6


@given(
    most=st.integers(1, 5000),
    steps=st.lists(
        st.tuples(st.floats(0, 8), st.integers(1, 900), st.floats(0, 1)), min_size=1, max_size=120
    ),
)
def test_no_minute_has_more_tokens_than_the_limit(
    most: int, steps: list[tuple[float, int, float]]
) -> None:
    """Requests take at most what they were taken to, and end some later."""
    meter, now = CallMeter(limits=CallLimits(tokens_per_minute=most)), 1000.0
    running: list[tuple[int, float]] = []
    used: list[tuple[float, int]] = []
    for pause, tokens, share in steps:
        now += pause
        for reserved, part in running[:: 2 if pause > 4 else 1]:
            meter.settle(reserved, int(reserved * part), now)
            used.append((now, int(reserved * part)))
        running = [] if pause <= 4 else running[1::2]
        if meter.take(tokens, now) == 0:
            running.append((tokens, share))
        last_minute = sum(amount for at, amount in used if at > now - MINUTE_S)
        assert last_minute <= max(most, tokens, *(amount for _, amount in used), 0)
        assert meter.reserved == sum(reserved for reserved, _ in running)


def test_a_request_larger_than_the_limit_fits_once_nothing_else_was_used() -> None:
    meter = CallMeter(limits=CallLimits(tokens_per_minute=100))
    assert meter.take(500, 10.0) == 0
    assert meter.take(1, 10.0) > 0
    meter.settle(500, 450, 20.0)
    wait_s = meter.take(1, 20.0)
    assert 59 < wait_s <= 60.2
    assert meter.take(500, 20.0 + wait_s + 1e-6) == 0


def test_what_is_left_is_told() -> None:
    meter = CallMeter(limits=CallLimits(tokens_per_minute=100, requests_per_minute=2))
    meter.take(30, 5.0)
    assert meter.headers(5.0) == (
        b"x-ratelimit-limit-requests: 2\r\nx-ratelimit-remaining-requests: 1\r\n"
        b"x-ratelimit-limit-tokens: 100\r\nx-ratelimit-remaining-tokens: 70\r\n"
    )
    assert CallMeter(limits=CallLimits(models=("a",))).headers(5.0) == b""


@pytest.mark.parametrize(
    ("answer", "tokens"), [(7, 107), (None, 356), ("9", 356), (True, 356), (-1, 356)]
)
def test_a_request_is_taken_to_use_about_its_size_and_its_limit(
    answer: object, tokens: int
) -> None:
    assert tokens_asked(400, answer) == tokens
