"""Checks every transition of the recovery protocol in this process, whichever test makes it."""

from collections.abc import Iterator

import pytest

from karez.training.recovery import transitions
from karez.training.recovery.commands import Decision
from karez.training.recovery.events import RecoveryEvent
from karez.training.recovery.invariants import transition_violations, violations
from karez.training.recovery.state import Gang

found: list[str] = []
"""Of the test that runs. A controller's thread would only log an error that it raises."""


react = transitions._react


def react_and_check(gang: Gang, event: RecoveryEvent, now: float) -> Decision:
    after, commands = react(gang, event, now)
    if after is not gang:
        wrong = [*violations(after), *transition_violations(gang, after)]
        found.extend(f"{event}: {text}" for text in wrong)
    return after, commands


transitions._react = react_and_check


@pytest.fixture(autouse=True)
def _invariants_hold() -> Iterator[None]:
    found.clear()
    yield
    assert not found, found[:10]
