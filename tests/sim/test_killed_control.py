"""Control is killed before and after each write of a decision: nothing is lost, or done twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from karez.core.workloads import State
from tests.sim.fake_cloud import HOUR_S, FakeCloud

WRITES = (
    ("scheduler", "save_pending_decisions"),
    ("workloads", "request_preemption"),
    ("workloads", "place"),
    ("workloads", "regrant"),
    ("workloads", "requeue"),
    ("resize_requests", "request"),
    ("resize_requests", "take"),
)
"""Writes of the store that carry out decisions of the scheduler, and the answers to them."""


class Killed(BaseException):
    """Stands for SIGKILL to control: nothing after it is done, and nobody can catch it."""


class Killer:
    """Kills control at one of these writes."""

    def __init__(self, cloud: FakeCloud, at: int, *, after: bool) -> None:
        self.at, self.after, self.count = at, after, 0
        self.seen: set[str] = set()
        for part, name in WRITES:
            store = getattr(cloud.store, part)
            setattr(store, name, self.watched(name, getattr(store, name)))

    def watched(self, name: str, write: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            self.seen.add(name)
            if self.count == self.at and not self.after:
                raise Killed
            answer = write(*args, **kwargs)
            if self.count == self.at:
                raise Killed
            return answer

        return call


def story(cloud: FakeCloud, killer: Killer) -> list[str]:
    """Preemption, another size, requeued jobs; control starts again wherever it is killed."""

    def surviving(act: Any) -> Any:
        try:
            return act()
        except Killed:
            cloud.kill_control()
            return None

    jobs = []
    for more in (
        {"ranks": 4, "min": 2, "max": 12},
        {"ranks": 8, "preemptible": True},
        {"ranks": 8, "priority": 5},
        {"ranks": 4, "preemptible": True},
    ):
        surviving(lambda more=more: cloud.submit(steps=5, **more))
        jobs.append(f"job-{cloud.count}")
        surviving(lambda: cloud.run(0.7 * HOUR_S))
    for _ in range(40):
        surviving(lambda: cloud.run(HOUR_S))
        surviving(cloud.look)
        cloud.check()
    return jobs


def assert_all_is_well(cloud: FakeCloud, jobs: list[str]) -> None:
    for name in jobs:
        assert cloud.state(name) == State.SUCCEEDED, (name, cloud.job(name).status)
        assert cloud.gang(name).completed == cloud.totals[name]
    cloud.check_empty()


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    def each() -> Iterator[Path]:
        number = 0
        while True:
            number += 1
            (tmp_path / str(number)).mkdir()
            yield tmp_path / str(number)

    return each()


@pytest.mark.story
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_control_is_killed_at_each_write_of_a_decision(
    folders: Iterator[Path], *, after: bool
) -> None:
    at = 1
    while True:
        cloud = FakeCloud(next(folders), nodes=("a", "b"), cores=8)
        killer = Killer(cloud, at, after=after)
        assert_all_is_well(cloud, story(cloud, killer))
        cloud.close()
        if killer.count < at:
            break
        at += 1
    assert killer.seen == {name for _, name in WRITES}  # the last story is the calm one
