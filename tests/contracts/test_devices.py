"""Devices that fail while ranks compute on them, and that two jobs share."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.workloads import State
from tests.contracts.gang import Bench, Gang

pytestmark = pytest.mark.story
SCRIPT = Path(__file__).parent / "device_job.py"
NPU = DeviceKind.NPU


@pytest.mark.parametrize(
    ("spare", "rung"),
    [
        ([Grant(node=NodeId("b"), kind=NPU, devices=((0, 1000),))], "replace"),
        pytest.param([], "in-place", marks=pytest.mark.deep),
    ],
    ids=["there-is-another", "there-is-none"],
)
def test_a_rank_whose_device_fails_goes_on_with_another_if_there_is_one(
    tmp_path: Path, spare: Sequence[Grant], rung: str
) -> None:
    bench = Bench(tmp_path, ["a"], held=NPU, spare=spare)
    bench.fabric.add("b")
    ends = []
    calm: dict[str, float] = {}
    try:
        for more in (calm, {"lose_at": 5.0}):
            gang = Gang(bench, script=SCRIPT, steps=12, more=more).start()
            assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
            ends.append((gang.losses(), gang.weights()))
        (receipt,) = bench.store.history.receipts(gang.id)
        kept = bench.store.artifacts.find(gang.job().status.outputs["checkpoints"])
        assert kept is not None
        with bench.deps.blobs.open(kept.spec.files[0].sha256) as file:
            assert file.read() == b"12"  # of the rank that stayed, while grants changed
    finally:
        bench.close()
    assert (receipt.code, receipt.rung) == ("device", rung)
    assert receipt.steps_lost <= 1
    assert "DeviceLost: npu:0 stopped working: the emulated NPU is lost" in receipt.cause
    assert ends[0] == ends[1]


def test_two_jobs_share_one_device_by_fractions_and_end_as_each_would_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ["a"], held=NPU)

    def half(gang: Gang) -> Gang:
        gang.grants = [Grant(node=NodeId("a"), kind=NPU, devices=((0, 500),)) for _ in gang.grants]
        return gang

    try:
        alone = Gang(bench, script=SCRIPT, ranks=1, steps=12).start()
        assert alone.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
        both = [half(Gang(bench, script=SCRIPT, ranks=1, steps=12, is_placed=False)) for _ in "ab"]
        for gang in both:
            gang.place()
            gang.start(beside=True)
        for gang in both:
            assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
            assert gang.losses() == alone.losses()
            assert gang.weights() == alone.weights()
    finally:
        bench.close()
