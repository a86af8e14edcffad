"""Scripts as people have them, through a kill: what they end with is what they would have had.

A rank that holds an emulated NPU refuses parameters, activations and gradients on the host.
"""

from pathlib import Path

import pytest

from karez.core.devices import DeviceKind
from karez.core.workloads import State
from tests.contracts.gang import HELD, Bench, Gang

pytestmark = pytest.mark.story
HERE = Path(__file__).parent
NPU = DeviceKind.NPU
Job = tuple[str, dict[str, float], int]
"""(script, its settings, the step at which a rank is killed)."""
TRAINER: Job = ("hf_job.py", {"epochs": 12, "every": 4}, 7)
"""Micro-batches, evaluation, early stopping, epochs, checkpoints of its own."""
ACCELERATE: Job = ("accelerate_job.py", {}, 6)
LIGHTNING: Job = ("lightning_job.py", {"epochs": 12, "delta": 0.3}, 7)
FSDP2: Job = ("shards_job.py", {"fsdp": 1.0}, 6)


@pytest.mark.parametrize(
    ("held", "job"),
    [
        pytest.param(HELD, ("hf_job.py", {}, 6), id="trainer-in-steps", marks=pytest.mark.deep),
        pytest.param(HELD, TRAINER, id="trainer"),
        pytest.param(NPU, TRAINER, id="trainer-on-npus"),
        pytest.param(HELD, ACCELERATE, id="accelerate", marks=pytest.mark.deep),
        pytest.param(NPU, ACCELERATE, id="accelerate-on-npus"),
        pytest.param(HELD, LIGHTNING, id="lightning"),
        pytest.param(NPU, LIGHTNING, id="lightning-on-npus", marks=pytest.mark.deep),
        pytest.param(NPU, FSDP2, id="fsdp2-on-npus"),
    ],
)
def test_a_loop_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, held: DeviceKind, job: Job
) -> None:
    script, more, at = job
    bench = Bench(tmp_path, ["a"], held=held)
    losses, weights = [], []
    try:
        for kill in (False, True):
            gang = Gang(bench, script=HERE / script, steps=16, more=more).start()
            if kill:
                gang.reach(at)
                assert gang.kill(1)
            done = gang.finish(within_s=180)
            assert done.state == State.SUCCEEDED, f"{done.status} {bench.logs.text()[-2000:]}"
            losses.append(gang.losses())
            weights.append(gang.weights())
            assert len(bench.store.history.receipts(gang.id)) == int(kill)
    finally:
        bench.close()
    assert losses[0] == losses[1]
    assert weights[0] == weights[1]
