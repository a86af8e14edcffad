"""Seeded schedules of three to five faults each, some of them during a recovery."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.fuzz import Ground, calm, check, disturbed, ground, nothing_left, settle

pytestmark = pytest.mark.slow
MANY = int(os.environ.get("KAREZ_TEST_SCHEDULES", "24"))
"""Schedules in all; `make chaos` runs 216."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Ground]:
    made = ground(tmp_path)
    yield made
    made.close()
    nothing_left(made)


@pytest.mark.parametrize(
    ("mode", "ranks", "share"),
    [("ddp", 4, 0.5), ("sharded", 4, 0.25), ("ddp", 6, 0.125), ("fsdp", 4, 0.125)],
)
def test_every_schedule_of_faults_gives_the_same_numbers(
    bench: Ground, mode: str, ranks: int, share: float
) -> None:
    want = calm(bench, mode, ranks)
    for seed in range(max(1, round(MANY * share))):
        check(disturbed(bench, mode, ranks, seed, want))
        settle(bench)
