"""Gangs whose state is split over their ranks change their size and train on as if nothing were."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.settings import Settings
from karez.core.workloads import State
from tests.contracts.gang import HELD, Bench, Gang, assert_nothing_left, until

pytestmark = pytest.mark.alone
SCRIPT = Path(__file__).parent / "shards_job.py"
STEPS = 90
_KNOWN: dict[str, np.ndarray[Any, Any]] = {}
NPU = DeviceKind.NPU
ZERO, FSDP2 = {"fsdp": 0.0}, {"fsdp": 1.0}


def modes(*, deep: Mapping[str, float]) -> pytest.MarkDecorator:
    """Both ways to split the state; one of them in `make deep` alone."""
    kinds = [("zero", ZERO), ("fsdp2", FSDP2)]
    cases = [
        pytest.param(more, id=name, marks=pytest.mark.deep if more is deep else ())
        for name, more in kinds
    ]
    return pytest.mark.parametrize("more", cases)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, ["a", "b"], settings=Settings(checkpoint_s=0.3, tick_s=0.1))
    yield made
    made.close()
    assert_nothing_left(made)


def gang_of(bench: Bench, ranks: int, more: Mapping[str, float], *, work: int = 10) -> Gang:
    return Gang(bench, ranks=ranks, low=1, steps=STEPS, work=work, script=SCRIPT, more=dict(more))


def gpus(node: str, *numbers: int) -> list[Grant]:
    return [Grant(node=NodeId(node), kind=HELD, devices=((n, 1000),)) for n in numbers]


def check(bench: Bench, gang: Gang, more: Mapping[str, float]) -> None:
    """It ends like a gang of one that nothing happened to, but for the order of sums."""
    assert gang.finish().state == State.SUCCEEDED, f"{gang.job()} {bench.logs.text()[-3000:]}"
    if not _KNOWN:
        bench.nodes = ["a"]
        calm = gang_of(bench, 1, more).start()
        assert calm.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
        _KNOWN["weights"] = numbers(calm)
    assert np.allclose(numbers(gang), _KNOWN["weights"], atol=2e-4), "it trained on another state"
    steps = sorted({step for step, _ in gang.losses()})
    assert steps == list(range(1, STEPS + 1))


def numbers(gang: Gang) -> np.ndarray[Any, Any]:
    return np.array([float(value) for value in gang.weights().split()])


@modes(deep=FSDP2)
def test_it_grows_and_shrinks_on_demand(bench: Bench, more: Mapping[str, float]) -> None:
    bench.nodes = ["a"]
    gang = gang_of(bench, 2, more).start()
    gang.reach(10)
    bench.store.resize_requests.request(gang.id, [*gpus("a", 0, 1), *gpus("b", 2)])
    until(lambda: len(gang.alive()) == 3, what="three ranks")
    gang.reach(max(gang.progress()) + 3)
    gang.kill(1)
    gang.reach(max(gang.progress()) + 3)
    bench.store.resize_requests.request(
        gang.id, gpus("b", 2)
    )  # the only one that was not there at first
    until(lambda: gang.alive() == [2], what="one rank")
    memory = [steward.memory / gang.id for steward in bench.fabric.stewards.values()]
    until(lambda: [p.name for at in memory for p in at.glob("*.slots")] == ["2.slots"])
    check(bench, gang, more)
    (receipt,) = bench.store.history.receipts(gang.id)
    assert (receipt.ranks, receipt.rung) == ((1,), "in-place")


@modes(deep=ZERO)
def test_it_goes_on_without_a_lost_node(bench: Bench, more: Mapping[str, float]) -> None:
    gang = gang_of(bench, 4, more).start()
    gang.reach(10)
    bench.fabric.lose("b")
    check(bench, gang, more)
    (receipt,) = bench.store.history.receipts(gang.id)
    assert (receipt.rung, receipt.source) == ("shrink", "peer")
    assert receipt.steps_lost <= 1


@modes(deep=ZERO)
def test_it_starts_over_with_fewer_ranks_from_what_was_stored(
    bench: Bench, more: Mapping[str, float]
) -> None:
    bench.nodes = ["b"]
    gang = gang_of(bench, 3, more, work=100).start()  # a store takes seconds on a slow disk
    until(lambda: bool(bench.store.history.newest_checkpoint(gang.id, [0, 1, 2])), what="a store")
    bench.fabric.lose("b")
    assert gang.thread is not None
    gang.thread.join(30)
    assert gang.job().state == State.QUEUED
    stored = bench.store.history.newest_checkpoint(gang.id, [0, 1])
    assert [part.rank for part in stored[0]] == [0, 1, 2]
    gang.grants = gpus("a", 0, 1)
    gang.place()
    gang.start()
    gang.reach(stored[0][0].step + 1)
    resumed = [info.last_messages["resumed"]["step"] for info in gang.processes().values()]
    assert min(resumed) >= stored[0][0].step
    check(bench, gang, more)


@pytest.mark.parametrize(
    ("script", "ranks", "held"),
    [
        pytest.param("parallel_gpt.py", 4, HELD, id="tensor"),
        pytest.param("parallel_gpt.py", 4, NPU, id="tensor-npu", marks=pytest.mark.deep),
        pytest.param("pipeline_gpt.py", 2, HELD, id="pipeline"),
        pytest.param("pipeline_gpt.py", 4, HELD, id="data-pipeline", marks=pytest.mark.deep),
        pytest.param("pipeline_gpt.py", 4, NPU, id="data-pipeline-npu", marks=pytest.mark.deep),
    ],
)
def test_a_gpt_that_is_split_over_a_mesh_is_restored_in_place(
    tmp_path: Path, script: str, ranks: int, held: DeviceKind
) -> None:
    bench = Bench(tmp_path, ["a", "b"], held=held)
    path = Path(__file__).parent.parent.parent / "examples" / script
    losses, weights = [], []
    try:
        for kills in ((), (ranks - 1, 0)):
            gang = Gang(bench, ranks=ranks, steps=16, script=path).start()
            for number, rank in enumerate(kills):
                gang.reach(4 + 6 * number)
                gang.kill(rank)
            done = gang.finish(within_s=180)
            assert done.state == State.SUCCEEDED, f"{done.status} {bench.logs.text()[-3000:]}"
            receipts = bench.store.history.receipts(gang.id)
            assert [receipt.rung for receipt in receipts] == ["in-place"] * len(kills)
            losses.append(gang.losses())
            weights.append(gang.weights())
    finally:
        bench.close()
    assert losses[0] == losses[1]
    assert weights[0] == weights[1]
