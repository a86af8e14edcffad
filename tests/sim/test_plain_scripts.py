"""Trainings whose script opens no session: what their status says, and what ends them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from karez.core.workloads import EndReason, State
from karez.training.controller.status_writer import NO_SESSION, SESSION_S
from tests.sim.fake_cloud import SETTINGS, FakeCloud


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[FakeCloud]:
    made = FakeCloud(tmp_path, nodes=("a", "b"), settings=replace(SETTINGS, tick_s=1.0))
    yield made
    made.close()


def test_a_training_without_a_session_runs_and_says_so(cloud: FakeCloud) -> None:
    job = cloud.submit(ranks=2, steps=0)
    cloud.run(SESSION_S / 2)
    assert cloud.state(job) == State.STARTING
    cloud.run(SESSION_S)
    assert (cloud.state(job), cloud.job(job).status.reason) == (State.RUNNING, NO_SESSION)
    for process in [one for node in cloud.fabric.all.values() for one in node.processes.values()]:
        cloud.fabric.end(process, 0)
    cloud.run_until_ended(job)
    ended = cloud.job(job)
    assert (ended.state, ended.status.reason) == (State.SUCCEEDED, "")


def test_its_time_is_limited_too(cloud: FakeCloud) -> None:
    job = cloud.submit(ranks=2, steps=0, max_duration_s=3600.0)
    cloud.run_until_ended(job)
    assert cloud.job(job).status.end == EndReason.TIMED_OUT


def test_after_a_restart_it_runs_again(cloud: FakeCloud) -> None:
    job = cloud.submit(ranks=2, steps=0)
    cloud.run(2 * SESSION_S)
    first = next(p for node in cloud.fabric.all.values() for p in node.processes.values())
    cloud.fabric.end(first, -9)
    cloud.run(SESSION_S / 2)
    assert cloud.state(job) != State.RUNNING
    cloud.run(3600.0)
    assert (cloud.state(job), cloud.job(job).status.reason) == (State.RUNNING, NO_SESSION)
