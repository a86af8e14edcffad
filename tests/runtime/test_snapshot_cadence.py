"""How often a snapshot is written: by what it costs, and the same on all ranks."""

from hypothesis import given
from hypothesis import strategies as st

from karez.runtime.snapshot_cadence import MOST_S, MOST_STEPS, SnapshotCadence, budget_s

seconds = st.floats(1e-4, 60.0)


def measured(step_s: float, snapshot_s: float) -> SnapshotCadence:
    cadence = SnapshotCadence()
    cadence.took(step_s, snapshot_s)
    return cadence


def test_long_steps_are_all_kept() -> None:
    assert measured(2.0, 0.060).wanted == 1


def test_before_anything_is_measured_every_step_is_kept() -> None:
    assert SnapshotCadence().wanted == 1


def test_short_steps_are_kept_as_often_as_the_share_allows() -> None:
    assert measured(0.150, 0.025).wanted == 11


@given(seconds, seconds)
def test_the_cost_stays_in_its_share_unless_too_much_could_be_lost(
    step_s: float, snapshot_s: float
) -> None:
    every = measured(step_s, snapshot_s).wanted
    assert 1 <= every <= MOST_STEPS
    assert every == 1 or every * step_s <= MOST_S
    is_bounded = every == MOST_STEPS or (every + 1) * step_s > MOST_S
    assert is_bounded or snapshot_s / every <= budget_s(step_s) * 1.0001


@given(st.lists(st.lists(st.integers(1, 100), min_size=3, max_size=3), min_size=1, max_size=60))
def test_ranks_that_hear_the_same_write_snapshots_of_the_same_steps(said: list[list[int]]) -> None:
    ranks = [SnapshotCadence() for _ in range(3)]
    ranks[1].took(0.01, 0.5)  # each measures something else
    for step, wanted in enumerate(said, 1):
        for rank in ranks:
            rank.agree(wanted)
        assert len({rank.is_due(step) for rank in ranks}) == 1


def test_a_fixed_cadence_is_kept_and_starts_anew_at_a_restored_step() -> None:
    cadence = SnapshotCadence(fixed=3)
    cadence.agree([50])
    assert [step for step in range(1, 10) if cadence.is_due(step)] == [3, 6, 9]
    cadence.restart(7)
    assert [step for step in range(8, 12) if cadence.is_due(step)] == [10]
