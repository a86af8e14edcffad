"""A target in time to first token: as many replicas as it needs, on engines that slow down."""

import pytest

from karez.core.services import ServiceSpec
from karez.scheduling.autoscaling import (
    LATE_PART,
    LEAST_PART,
    FirstTokens,
    RequestHistory,
    wanted_replicas,
)

SPEC = ServiceSpec(
    name="s", model="m", parallel=10, min_replicas=1, max_replicas=60, first_token_s=0.5
)


def serve(inflight: float, busiest: float, seconds: int = 3600) -> list[tuple[int, float]]:
    """(replicas, late part) of each second, where answers are late beyond a part of the slots.

    At that part half of the answers begin late, and none is at a fifth less.
    """
    history, replicas, starting = RequestHistory(), 1, list[int]()
    begun = late = 0.0
    told = []
    for second in range(seconds):
        now = 1000.0 + second
        while starting and starting[0] <= second:
            starting.pop(0)
            replicas += 1
        busy = inflight / (replicas * SPEC.parallel)
        part = min(1.0, max(0.0, 0.5 + (busy / busiest - 1) * 2.5))
        begun, late = begun + inflight, late + part * inflight
        slots = replicas * SPEC.parallel
        history.record(now, inflight, slots, begun=round(begun), late=round(late))
        wanted = wanted_replicas(SPEC, history.demand(), current=replicas + len(starting), now=now)
        starting += [second + 10] * (wanted - replicas - len(starting))
        replicas = min(replicas, wanted)
        told.append((replicas, part))
    return told


@pytest.mark.parametrize("busiest", [0.9, 0.6, 0.4])
def test_a_target_is_met_with_about_as_few_replicas_as_it_needs(busiest: float) -> None:
    told = serve(100.0, busiest)[1200:]
    late = sum(part for _, part in told) / len(told)
    assert late < LATE_PART
    needed = 100.0 / (10 * busiest * 0.8)
    mean = sum(replicas for replicas, _ in told) / len(told)
    assert mean < 1.4 * needed + 1


def test_a_target_that_nothing_meets_takes_no_more_than_four_times_as_many() -> None:
    tokens = FirstTokens()
    for second in range(3600):
        tokens.record(float(second), 10 * second, 10 * second, 10.0)
    assert tokens.part == LEAST_PART


def test_few_answers_and_a_new_gateway_say_nothing() -> None:
    tokens = FirstTokens()
    for second in range(600):
        tokens.record(float(second), second // 60, second // 60, 10.0)
    assert tokens.part == 1.0
    tokens.record(601.0, 0, 0, 10.0)  # the gateway was started anew
    tokens.record(602.0, 19, 19, 10.0)
    assert tokens.part == 1.0


def test_without_a_target_nothing_is_late() -> None:
    told = serve(100.0, 100.0, seconds=300)
    assert {replicas for replicas, _ in told[120:]} <= {11, 14}
