"""A threshold that is chosen on some rows keeps its promise on others."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.studio.selective_answers import (
    RISK,
    Answered,
    Judged,
    NoThreshold,
    Threshold,
    answered_from,
    chance_of_at_most,
    choose_threshold,
    curve,
    least_share,
    rows_needed,
)


def rows(*answers: tuple[float, bool]) -> list[Judged]:
    return [Judged(confidence=sure, is_right=right) for sure, right in answers]


JUDGED = st.lists(
    st.builds(Judged, confidence=st.sampled_from([0.1, 0.5, 0.9, 0.99]), is_right=st.booleans()),
    max_size=400,
)


@given(JUDGED, st.sampled_from([0.5, 0.8, 0.95]))
def test_a_threshold_answers_what_it_was_chosen_on(judged: list[Judged], target: float) -> None:
    found = choose_threshold(judged, target)
    if isinstance(found, Threshold):
        assert answered_from(judged, found.confidence) == found.chosen_on
        assert least_share(found.chosen_on.right, found.chosen_on.answered) >= target - 1e-9
    else:
        assert found.reason


def test_a_threshold_misses_its_target_no_more_often_than_it_may() -> None:
    """The share that is right above each confidence is known: errors grow with the doubt."""
    draw, target, missed, found = random.Random(1), 0.9, 0, 0
    for _ in range(300):
        judged = []
        for _ in range(500):
            sure = draw.random()
            judged.append(Judged(confidence=sure, is_right=draw.random() > 0.6 * (1 - sure) ** 2))
        chosen = choose_threshold(judged, target)
        if isinstance(chosen, Threshold):
            found += 1
            # the mean of 0.6 * (1 - s)^2 for s from the threshold to 1
            missed += 0.2 * (1 - chosen.confidence) ** 2 > 1 - target
    assert found > 250  # it is of use, too
    assert missed / 300 <= RISK + 3 * math.sqrt(RISK / 300)


def test_where_validation_rows_are_too_few_it_says_how_many_are_needed() -> None:
    found = choose_threshold(rows((0.9, True)) * 100, 0.98)
    assert found == NoThreshold(
        reason="100 validation rows are too few: 98% needs 217 answers without a fault"
    )
    assert rows_needed(0.98) == 217


@pytest.mark.parametrize("count", [217, 240, 271, 272])
def test_as_many_rows_as_are_needed_are_enough(count: int) -> None:
    judged = [Judged(confidence=1 - i / 1000, is_right=True) for i in range(count)]
    found = choose_threshold(judged, 0.98)
    assert isinstance(found, Threshold)
    assert found.chosen_on.answered == count


def test_a_confidence_is_a_number() -> None:
    with pytest.raises(ValueError, match="is a number"):
        Judged(confidence=math.nan, is_right=True)


def test_where_no_threshold_reaches_the_target_it_says_what_was_seen() -> None:
    found = choose_threshold(rows((0.9, True), (0.9, False)) * 200, 0.9)
    assert isinstance(found, NoThreshold)
    assert found.reason == (
        "200 of the 400 surest of 400 validation rows are right, which does not show 90%"
    )


def test_all_rows_are_answered_where_all_are_right() -> None:
    found = choose_threshold([Judged(confidence=i / 300, is_right=True) for i in range(300)], 0.95)
    assert found == Threshold(confidence=0.0, chosen_on=Answered(rows=300, answered=300, right=300))


def test_rows_of_equal_confidence_stay_together() -> None:
    judged = rows((0.9, True)) * 299 + rows((0.1, True)) + rows((0.1, False)) * 100
    found = choose_threshold(judged, 0.95)
    assert isinstance(found, Threshold)
    assert found.chosen_on.answered == 299


@pytest.mark.parametrize(
    ("right", "of", "least"), [(149, 149, 0.98), (235, 236, 0.98), (518, 523, 0.98), (0, 9, 0.0)]
)
def test_bounds_are_those_of_the_tables(right: int, of: int, least: float) -> None:
    """Rows that a 95% one-sided bound above 98% needs with 0, 1 and 5 faults."""
    assert least_share(right, of) >= least
    if right:
        assert least_share(right - 1, of - 1) < least


def test_chances_are_those_of_the_binomial_distribution() -> None:
    exact = sum(math.comb(20, k) * 0.1**k * 0.9 ** (20 - k) for k in range(4))
    assert chance_of_at_most(3, 20, 0.1) == pytest.approx(exact)
    assert chance_of_at_most(20, 20, 0.1) == chance_of_at_most(0, 9, 0) == 1.0
    assert chance_of_at_most(0, 9, 1) == 0.0


def test_the_curve_goes_from_the_surest_rows_to_all() -> None:
    judged = rows((0.9, True), (0.8, True), (0.7, False), (0.6, False))
    assert curve(judged, 4) == [(0.25, 1.0), (0.5, 1.0), (0.75, 2 / 3), (1.0, 0.5)]
    assert curve([], 4) == []
    assert curve(rows((0.9, True), (0.9, False), (0.9, True), (0.1, False)), 4) == [
        (0.75, 2 / 3),
        (1.0, 0.5),
    ]


@pytest.mark.parametrize("target", [0, 1, 1.5, -1])
def test_a_target_is_a_share(target: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        choose_threshold([], target)
