"""Scripts for torchrun resume from checkpoints that they wrote, wherever they go on."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from karez.core.artifacts import Artifact, ArtifactKind
from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.settings import Settings
from karez.core.workloads import State, WorkloadId
from karez.server.controllers.expired_artifacts import remove_expired
from tests.contracts.cloud import kill_all
from tests.contracts.gang import HELD, Bench, Gang, until

pytestmark = pytest.mark.story
SCRIPT = Path(__file__).parent / "plain_job.py"
TORCHRUN = ("torchrun", "--standalone", "--nproc-per-node=2", str(SCRIPT))
STEPS = 24


def plain(bench: Bench, *, torchrun: bool = False, pause_ms: float = 0.0) -> Gang:
    bench.store.pool.record_nodes(bench.fabric.nodes(), now=1.0)  # whence MASTER_ADDR comes
    return Gang(
        bench,
        ranks=1 if torchrun else 2,
        steps=STEPS,
        script=SCRIPT,
        command=TORCHRUN if torchrun else (),
        more={"pause_ms": pause_ms},
    ).start()


def said(gang: Gang) -> str:
    files = gang.bench.logs.files.items()
    return b"".join(text for (job, _), text in files if job == gang.id).decode()


def until_said(gang: Gang, what: str) -> None:
    until(lambda: what in said(gang) or gang.ended(), what=what)
    assert what in said(gang), f"{gang.job().status} {said(gang)[-2000:]}"


def checkpoints(gang: Gang) -> Artifact | None:
    return gang.bench.store.artifacts.find(f"{gang.id}-checkpoints")


def start_again(gang: Gang, node: str = "") -> None:
    """Wait until the job is queued again, and start it as the scheduler would."""
    until(lambda: gang.job().state == State.QUEUED, what=said(gang)[-2000:])
    if node:
        gang.grants = [
            Grant(node=NodeId(node), kind=grant.kind, devices=grant.devices)
            for grant in gang.grants
        ]
    gang.place()
    gang.start()


def weights_after(
    bench: Bench,
    disturb: Callable[[Gang], None] | None,
    *,
    torchrun: bool = False,
    pause_ms: float = 60.0,
) -> str:
    gang = plain(bench, torchrun=torchrun, pause_ms=pause_ms if disturb else 0.0)
    if disturb:
        until_said(gang, "step 12")
        disturb(gang)
    assert gang.finish().state == State.SUCCEEDED, bench.logs.text()[-3000:]
    return gang.weights()


@pytest.mark.parametrize(
    ("held", "torchrun"),
    [
        pytest.param(HELD, False, id="ranks"),
        pytest.param(HELD, True, id="torchrun", marks=pytest.mark.deep),
        pytest.param(DeviceKind.NPU, False, id="npus"),
    ],
)
def test_a_killed_script_ends_as_if_nothing_had_happened(
    tmp_path: Path, held: DeviceKind, *, torchrun: bool
) -> None:
    bench = Bench(tmp_path, ["a"], held=held)

    def kill(gang: Gang) -> None:
        for info in gang.processes().values():
            rank = psutil.Process(info.pid)
            kill_all([rank, *rank.children(recursive=True)])  # torchrun's too
        start_again(gang)
        until_said(gang, "resumed from")

    try:
        calm = weights_after(bench, None, torchrun=torchrun)
        assert weights_after(bench, kill, torchrun=torchrun) == calm
        rungs = [one.rung for one in bench.store.history.receipts(WorkloadId("job-2"))]
        assert rungs == ["restart"]
        assert ("on npu:0" in bench.logs.text()) == (held == DeviceKind.NPU)
    finally:
        bench.close()


def test_after_a_node_is_lost_the_script_goes_on_elsewhere_from_what_was_stored(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, ["a"], settings=Settings(checkpoint_s=0.1, tick_s=0.1))
    bench.fabric.add("b")

    def lose(gang: Gang) -> None:
        until(lambda: checkpoints(gang) is not None, what="a stored checkpoint")
        bench.fabric.lose("a")
        start_again(gang, node="b")
        until_said(gang, "resumed from")

    try:
        quiet_ms = 250.0  # the folder stands still between two of its checkpoints
        calm = weights_after(bench, None)
        assert weights_after(bench, lose, pause_ms=quiet_ms) == calm
    finally:
        bench.close()


def test_jobs_of_the_same_id_in_two_clouds_on_one_host_meet_their_own_ranks(tmp_path: Path) -> None:
    benches = [Bench(tmp_path / name, ["a"]) for name in ("one", "two")]
    try:
        gangs = [plain(bench) for bench in benches]
        assert gangs[0].id == gangs[1].id
        assert [gang.finish().state for gang in gangs] == [State.SUCCEEDED, State.SUCCEEDED]
        assert gangs[0].weights() == gangs[1].weights()
    finally:
        for bench in benches:
            bench.close()


def test_a_job_that_is_cancelled_leaves_its_checkpoints(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ["a"])
    gang = plain(bench, pause_ms=30.0)
    try:
        until_said(gang, "step 12")
        bench.store.workloads.request_stop(gang.id, at=1.0)
        done = gang.finish()
        kept = checkpoints(gang)
        assert kept is not None
        assert (done.state, done.status.outputs) == (State.CANCELLED, {"checkpoints": kept.id})
        assert [file.path for file in kept.spec.files] == ["newest.pt"]
    finally:
        bench.close()


WRITES = 'mkdir -p "$KAREZ_OUT/model"; echo half > "$KAREZ_OUT/model/weights"; echo ready; '


@pytest.mark.parametrize(
    "end", ["exit 3", pytest.param("kill -9 $$", marks=pytest.mark.deep), "sleep 1000"]
)
def test_what_a_job_that_did_not_succeed_has_written_is_kept_for_a_time(
    tmp_path: Path, end: str
) -> None:
    bench = Bench(tmp_path, ["a"])
    command = ("sh", "-c", WRITES + end)
    gang = Gang(bench, ranks=1, command=command, ladder=("in-place",)).start()
    try:
        if end.startswith("sleep"):
            until_said(gang, "ready")
            bench.store.workloads.request_stop(gang.id, at=1.0)
        began_at = time.time()
        done = gang.finish()
        assert done.state == (State.CANCELLED if end.startswith("sleep") else State.FAILED)
        (name,) = done.status.outputs
        assert name == "unfinished-model"
        kept = bench.store.artifacts.find(done.status.outputs[name])
        assert kept is not None
        assert (kept.spec.name, kept.spec.kind) == ("gang-unfinished-model", ArtifactKind.REPORT)
        assert bench.deps.blobs.open(kept.spec.files[0].sha256).read() == b"half\n"
        until_s = began_at + bench.settings.keep_failed_s
        remove_expired(bench.store, until_s - 1.0)
        assert bench.store.artifacts.find(kept.id) is not None
        remove_expired(bench.store, until_s + 60.0)
        assert bench.store.artifacts.find(kept.id) is None
    finally:
        bench.close()
