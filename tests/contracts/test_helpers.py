"""Helper processes of nodes are killed at random moments while trainings run (C3)."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from karez.core.workloads import State
from karez.drivers.steward.steward import Steward
from tests.contracts.fuzz import STEPS, Ground, Trial, calm, ground, settle
from tests.contracts.gang import assert_nothing_left

pytestmark = pytest.mark.deep
KILLS = int(os.environ.get("KAREZ_TEST_KILLS", "50"))
"""How many, in `make deep`."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Ground]:
    made = ground(tmp_path)
    yield made
    made.close()
    assert_nothing_left(made)


def helpers(steward: Steward) -> dict[str, list[int]]:
    """Kind of helper -> process ids."""
    launcher, tracked = steward._launcher, steward._table.alive()
    return {
        "fork server": [client._process.pid for client in launcher._servers._all()],
        "replica server": [steward._replicas._process.pid],
        "subreaper": [process.subreaper for process in tracked if process.subreaper],
        "sandbox": [
            int(made.answer["pid"])
            for made in list(launcher.sandboxes._made.values())
            if "pid" in made.answer
        ],
    }


def kill_one(bench: Ground, chance: Random) -> str:
    """Kill a helper of some node; returns which."""
    name = chance.choice(sorted(bench.fabric.stewards))
    kinds = {kind: pids for kind, pids in helpers(bench.fabric.stewards[name]).items() if pids}
    kind = chance.choice(sorted(kinds))
    with suppress(ProcessLookupError):
        os.kill(chance.choice(kinds[kind]), signal.SIGKILL)
    return f"{kind} of {name}"


def run(bench: Ground, kills: int, seed: int) -> None:
    chance, done = Random(seed), 0
    losses, weights = calm(bench, "ddp", 4)
    settle(bench)
    while done < kills:
        trial = Trial(bench, ranks=4, steps=STEPS, mode="ddp").start()
        told, at = [], 1
        for _ in range(min(5, kills - done)):
            at += chance.randint(1, 9)
            trial.reach(min(at, STEPS - 5))
            told.append(f"{kill_one(bench, chance)} at step {trial.step()}")
            done += 1
        ended = trial.finish(within_s=120)
        assert ended.state == State.SUCCEEDED, (told, ended.status, bench.logs.text()[-2000:])
        assert (trial.losses(), trial.weights()) == (losses, weights), told
        settle(bench)
    for steward in bench.fabric.stewards.values():
        assert not steward._launcher.sandboxes._made
        assert steward.describe().problems == ()


def test_trainings_go_on_when_helpers_are_killed(bench: Ground) -> None:
    run(bench, kills=KILLS, seed=2)
