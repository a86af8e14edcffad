"""Ranks end their training together; one that leaves alone is noticed and named."""

from pathlib import Path

import pytest

from karez.core.settings import Settings
from karez.core.workloads import EndReason, State
from tests.contracts.gang import Bench, Gang

pytestmark = pytest.mark.story
SCRIPT = Path(__file__).parent / "stop_job.py"


def run(bench: Bench, how: str, *, every: int = 1, pause_s: float = 0.0, kill: int = 0) -> Gang:
    more: dict[str, float | str] = {"how": how, "every": every, "pause_s": pause_s}
    gang = Gang(bench, script=SCRIPT, more=more).start()
    if kill:
        gang.reach(kill)
        gang.kill(1)
    return gang


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.deep), 4])
def test_all_ranks_stop_after_the_same_step_also_after_a_kill(tmp_path: Path, every: int) -> None:
    bench = Bench(tmp_path, ["a"])
    try:
        weights = set()
        for pause_s, kill in ((0.0, 0), (0.05, 6), (0.05, 9)):
            gang = run(bench, "stop", every=every, pause_s=pause_s, kill=kill)
            done = gang.finish()
            assert (done.state, done.status.step) == (State.SUCCEEDED, 10)
            assert done.status.total_steps == 10
            weights.add(gang.weights())
        assert len(weights) == 1
        assert bench.logs.text().count("ends after 10") >= 6
    finally:
        bench.close()


def test_a_rank_that_leaves_its_loop_is_noticed_within_the_hang_limit(tmp_path: Path) -> None:
    settings = Settings(checkpoint_s=1e9, tick_s=0.1, hang_s=1.0)
    bench = Bench(tmp_path, ["a"], settings=settings)
    try:
        done = run(bench, "leave").finish(within_s=45)
        assert (done.state, done.status.end) == (State.FAILED, EndReason.USER_ERROR)
        assert done.status.reason.startswith(
            "rank 0 left its loop after step 10, and rank 1 waits for it"
        )
        assert "run.stop()" in done.status.reason
    finally:
        bench.close()
