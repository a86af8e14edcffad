"""Seeded schedules of three to five faults each, some of them during a recovery."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from karez.core.devices import DeviceKind
from tests.contracts.fuzz import Ground, calm, check, disturbed, ground, settle
from tests.contracts.gang import assert_nothing_left

pytestmark = pytest.mark.alone
MANY = int(os.environ.get("KAREZ_TEST_SCHEDULES", "24"))
"""Schedules in all, six of them stories; `make chaos` runs 216."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Ground]:
    yield from closed_at_the_end(ground(tmp_path))


@pytest.fixture
def npus(tmp_path: Path) -> Iterator[Ground]:
    yield from closed_at_the_end(ground(tmp_path, DeviceKind.NPU))


def closed_at_the_end(made: Ground) -> Iterator[Ground]:
    yield made
    made.close()
    assert_nothing_left(made)


def seeds(first: float, last: float) -> range:
    """A part of all schedules, from one share of them to another."""
    return range(round(MANY * first), max(round(MANY * last), round(MANY * first) + 1))


@pytest.mark.parametrize(
    ("mode", "ranks", "numbers"),
    [
        pytest.param("ddp", 4, seeds(0, 1 / 6), id="ddp-4"),
        pytest.param("sharded", 4, seeds(0, 1 / 12), id="sharded-4"),
        pytest.param("ddp", 4, seeds(1 / 6, 1 / 2), id="ddp-4-more", marks=pytest.mark.deep),
        pytest.param(
            "sharded", 4, seeds(1 / 12, 1 / 4), id="sharded-4-more", marks=pytest.mark.deep
        ),
        pytest.param("ddp", 6, seeds(0, 1 / 8), id="ddp-6", marks=pytest.mark.deep),
        pytest.param("fsdp", 4, seeds(0, 1 / 8), id="fsdp-4", marks=pytest.mark.deep),
    ],
)
def test_every_schedule_of_faults_gives_the_same_numbers(
    bench: Ground, mode: str, ranks: int, numbers: range
) -> None:
    want = calm(bench, mode, ranks)
    for seed in numbers:
        check(disturbed(bench, mode, ranks, seed, want))
        settle(bench)


@pytest.mark.parametrize(
    ("mode", "numbers"),
    [
        pytest.param("ddp", seeds(0, 1 / 24), id="ddp"),
        pytest.param("fsdp", seeds(0, 1 / 24), id="fsdp", marks=pytest.mark.deep),
        pytest.param("ddp", seeds(1 / 24, 1), id="ddp-more", marks=pytest.mark.deep),
        pytest.param("sharded", seeds(0, 1 / 2), id="sharded-more", marks=pytest.mark.deep),
        pytest.param("fsdp", seeds(1 / 24, 1 / 2), id="fsdp-more", marks=pytest.mark.deep),
    ],
)
def test_schedules_on_emulated_npus_give_the_same_numbers(
    npus: Ground, mode: str, numbers: range
) -> None:
    want = calm(npus, mode, 4)
    for seed in numbers:
        check(disturbed(npus, mode, 4, seed, want))
        settle(npus)


@pytest.mark.parametrize(
    ("every", "numbers"),
    [
        pytest.param(0, seeds(0, 1 / 12), id="by-cost"),
        pytest.param(5, seeds(1 / 12, 1 / 4), id="5", marks=pytest.mark.deep),
        pytest.param(0, seeds(1 / 4, 1 / 2), id="by-cost-more", marks=pytest.mark.deep),
    ],
)
def test_schedules_with_snapshots_every_few_steps_give_the_same_numbers(
    bench: Ground, every: int, numbers: range
) -> None:
    want = calm(bench, "ddp", 4)  # with one at every step: the cadence changes no number
    for seed in numbers:
        check(disturbed(bench, "ddp", 4, seed, want, every))
        settle(bench)
