"""The clock never leaps, whatever the host's does."""

from hypothesis import given
from hypothesis import strategies as st

from karez.server.clock import SLEW, SteadyClock, slew

INSTANTS = st.floats(0, 4e9)


@given(INSTANTS, st.floats(0, 1e5), INSTANTS)
def test_it_goes_on_at_nearly_the_pace_of_time(shown: float, elapsed_s: float, wall: float) -> None:
    moved_s = slew(shown, elapsed_s, wall) - shown
    slack = 1e-6 * max(1.0, elapsed_s)
    assert (1 - SLEW) * elapsed_s - slack <= moved_s <= (1 + SLEW) * elapsed_s + slack


@given(st.floats(-7200, 7200))
def test_a_step_of_the_systems_clock_is_made_good_in_time(step_s: float) -> None:
    shown, wall = 1e9, 1e9 + step_s
    for _ in range(10_000):
        shown, wall = slew(shown, 10.0, wall + 10.0), wall + 10.0
    assert abs(shown - wall) < 1e-3


def test_the_real_one_never_goes_back() -> None:
    clock = SteadyClock()
    seen = [clock.now() for _ in range(100)]
    assert seen == sorted(seen)
