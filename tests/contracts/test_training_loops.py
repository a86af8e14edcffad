"""Scripts as people have them, through a kill: what they end with is what they would have had.

A rank that holds an emulated NPU refuses parameters, activations and gradients on the host.
"""

from pathlib import Path

import pytest

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.settings import Settings
from karez.core.workloads import State
from tests.contracts.gang import HELD, Bench, Gang, until

pytestmark = pytest.mark.story
HERE = Path(__file__).parent
NPU = DeviceKind.NPU
Job = tuple[str, dict[str, float], int]
"""(script, its settings, the step at which a rank is killed)."""
TRAINER: Job = ("hf_job.py", {"epochs": 12, "every": 4}, 7)
"""Micro-batches, evaluation, early stopping, epochs, checkpoints of its own."""
TRAINER_0: Job = ("hf_job.py", {"epochs": 12, "every": 4, "killed": 0}, 7)
"""Rank 0 is killed, which writes checkpoints and the result; else rank 1."""
ACCELERATE: Job = ("accelerate_job.py", {}, 6)
LIGHTNING: Job = ("lightning_job.py", {"epochs": 12, "delta": 0.3}, 7)
FSDP2: Job = ("shards_job.py", {"fsdp": 1.0}, 6)


@pytest.mark.parametrize(
    ("held", "job"),
    [
        pytest.param(HELD, ("hf_job.py", {}, 6), id="trainer-in-steps", marks=pytest.mark.deep),
        pytest.param(HELD, TRAINER, id="trainer"),
        pytest.param(
            HELD,
            TRAINER_0,
            id="trainer-rank-0",
            marks=pytest.mark.deep,
        ),
        # 1 of 14 undisturbed runs differs from the others by a unit in the last place, also of the
        # losses before a kill: autograd's threads of CPU and emulated NPU, cause not found yet
        pytest.param(NPU, TRAINER, id="trainer-on-npus", marks=pytest.mark.deep),
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
                assert gang.kill(int(more.get("killed", 1)))
            done = gang.finish(within_s=180)
            assert done.state == State.SUCCEEDED, f"{done.status} {bench.logs.text()[-2000:]}"
            losses.append(gang.losses())
            weights.append(gang.weights())
            assert len(bench.store.history.receipts(gang.id)) == int(kill)
    finally:
        bench.close()
    assert losses[0] == losses[1]
    assert weights[0] == weights[1]


@pytest.mark.deep
@pytest.mark.parametrize("is_stored", [True, False])
def test_a_best_model_that_was_lost_with_its_node_is_never_replaced_by_a_worse_one(
    tmp_path: Path, is_stored: bool
) -> None:
    """Rank 0 writes the Trainer's checkpoints; its node goes once the best one has been written."""
    script, gate = HERE / "hf_job.py", tmp_path / "gate"
    settings = Settings(checkpoint_s=0.1 if is_stored else 1e9, tick_s=0.1)
    spare = (Grant(node=NodeId("c"), kind=HELD, devices=((0, 1000),)),)
    bench = Bench(tmp_path / "lost", ["a", "b", "c"], spare=spare, settings=settings)
    bench.nodes = ["a", "b"]
    calm_bench = Bench(tmp_path / "calm", ["a"])
    try:
        more: dict[str, float | str] = {"epochs": 12, "gate_at": 8, "gate": str(gate)}
        gang = Gang(bench, script=script, more=more).start()
        gang.reach(8)
        if is_stored:
            until(lambda: bench.store.artifacts.find(f"{gang.id}-checkpoints") is not None)
        bench.fabric.lose("a")
        gate.touch()
        done = gang.finish(within_s=120)
        if is_stored:
            calm = Gang(calm_bench, script=script, more={"epochs": 12}).start()
            assert calm.finish().state == State.SUCCEEDED
            assert done.state == State.SUCCEEDED, f"{done.status} {bench.logs.text()[-3000:]}"
            assert gang.weights() == calm.weights()
        else:
            assert done.state == State.FAILED
            assert "the best model (step 3) with it" in done.status.reason
    finally:
        bench.close()
        calm_bench.close()
