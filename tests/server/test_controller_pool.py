"""Steps of many controllers on few threads."""

import threading
from collections.abc import Iterator

import pytest

from karez.core.metrics import NoMetrics
from karez.core.workloads import WorkloadId
from karez.server.clock import SteadyClock
from karez.server.controllers.controller_pool import LOOK_S, ControllerPool
from tests.contracts.gang import until

IDENT = WorkloadId("job-1")


class Steps:
    """A controller that counts its steps, and is due again only when it is woken."""

    def __init__(self, *, is_slow: bool = False) -> None:
        self.is_slow = is_slow
        self.count = 0
        self.stepped = threading.Event()
        self.is_over = False
        self.fails = False
        self.is_closed = False
        self.may_return: threading.Event | None = None
        """Each step waits for it."""

    def step(self) -> float | None:
        self.count += 1
        self.stepped.set()
        if self.may_return is not None:
            self.may_return.wait(10)
        if self.fails:
            raise RuntimeError("a defect")
        return None if self.is_over else 1e18

    def note_request(self) -> None:
        return

    def stand_down(self) -> None:
        self.is_over = True

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def ended() -> list[tuple[str, Exception | None]]:
    return []


@pytest.fixture
def pool(ended: list[tuple[str, Exception | None]]) -> Iterator[ControllerPool]:
    made = ControllerPool(
        clock=SteadyClock(),
        metrics=NoMetrics(),
        on_ended=lambda ident, _, failure: ended.append((ident, failure)),
    )
    made.start()
    yield made
    made.stand_down()


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_controller_that_is_woken_makes_its_step_at_once(
    pool: ControllerPool, *, is_slow: bool
) -> None:
    """A worker of the other pace that is woken instead would leave it until somebody looks."""
    steps = Steps(is_slow=is_slow)
    pool.add(IDENT, steps)
    for _ in range(30):
        assert steps.stepped.wait(LOOK_S / 2)
        until(lambda: not pool._entries[IDENT].is_in_step, within_s=5)
        steps.stepped.clear()
        pool.wake(IDENT)


def test_a_controller_that_ends_or_fails_is_reported(
    pool: ControllerPool, ended: list[tuple[str, Exception | None]]
) -> None:
    first, second = Steps(), Steps()
    pool.add(IDENT, first)
    pool.add(WorkloadId("job-2"), second)
    until(lambda: first.count == second.count == 1, within_s=5)
    pool.drop(IDENT, within_s=5.0)
    second.fails = True
    pool.wake(WorkloadId("job-2"))
    until(lambda: len(ended) == 2, within_s=5)
    assert ended[0] == (IDENT, None)
    assert str(ended[1][1]) == "a defect"
    assert len(pool) == 0
    assert first.is_closed
    assert second.is_closed


def test_a_successor_that_begins_in_the_last_step_of_a_controller_stays(
    pool: ControllerPool, ended: list[tuple[str, Exception | None]]
) -> None:
    """A job that is queued again may be placed and claimed before its controller has returned."""
    first, second = Steps(), Steps()
    first.is_over, first.may_return = True, threading.Event()
    pool.add(IDENT, first)
    until(lambda: first.count == 1, within_s=5)
    pool.add(IDENT, second)
    first.may_return.set()
    until(lambda: bool(ended), within_s=5)
    second.stepped.clear()
    pool.wake(IDENT)
    assert second.stepped.wait(5)
