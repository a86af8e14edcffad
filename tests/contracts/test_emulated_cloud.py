"""A cloud whose node emulates NPUs: what is granted one computes on it, and everything says so."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from karez.core.artifacts import ArtifactKind
from karez.core.errors import Failed
from karez.core.gangs import GangSpec
from karez.core.jobs import Job, JobSpec
from karez.core.resource_syntax import parse_resource_request
from karez.core.workloads import WorkloadKind
from tests.contracts.cloud import Cloud, kill_rank, make_cloud, until
from tests.wheels import make_wheel

pytestmark = pytest.mark.story
PLAIN = """
import os
from pathlib import Path
import torch, torch.distributed as dist
device = torch.accelerator.current_accelerator()
dist.init_process_group("hccl")
row = torch.full((3,), dist.get_rank() + 1.0, device=device)
dist.all_reduce(row)
Path(os.environ["KAREZ_CHECKPOINT_DIR"], f"rank-{dist.get_rank()}.pt").write_text("kept")
print("sum", row.tolist(), "on", row.device, "of", torch.npu.device_count())
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = make_cloud(tmp_path_factory.mktemp("npus"))
    made.karez("up", "--emulate", "npu=2")
    yield made
    made.karez("down")


def on_npus(workers: int, each: str = "npu=1") -> GangSpec:
    return GangSpec(min=workers, want=workers, each=(parse_resource_request(each),))


def test_the_pool_shows_them_as_emulated(cloud: Cloud) -> None:
    (node,) = json.loads(cloud.karez("pool", "--json").stdout)
    npus = [device for device in node["devices"] if device["kind"] == "npu"]
    assert [device["model"] for device in npus] == ["emulated"] * 2
    assert "0/2 emulated npu" in cloud.karez("pool").stdout


def test_a_plain_script_finds_its_npu_and_its_collectives(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    with cloud.client() as client:
        code = client.upload(tmp_path, name="plain", kind=ArtifactKind.CODE)
        spec = JobSpec(
            name="plain",
            kind=WorkloadKind.TRAIN,
            command=("python", "plain.py"),
            code=code.id,
            gang=on_npus(2),
        )
        done = client.wait(client.submit(spec).id)
        kept = client.artifact(done.status.outputs["checkpoints"]).spec
    assert {file.path for file in kept.files} == {"rank-0.pt", "rank-1.pt"}  # ranks race
    shown = cloud.karez("logs", "plain", "--grep", "sum").stdout
    assert shown.count("sum [3.0, 3.0, 3.0] on npu:0 of 1") == 2


@pytest.mark.deep
def test_an_environment_and_a_shell_compute_on_it_too(cloud: Cloud, tmp_path: Path) -> None:
    """A job of an array waits in its environment until a file is copied into it."""
    make_wheel(tmp_path / "wheels", "waterwheel", "1.2", "TURNS = 12\n")
    (tmp_path / "requirements.txt").write_text("waterwheel==1.2\n")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "turn.py").write_text(
        "import os, time, torch, waterwheel\n"
        "from karez import training\n"
        "with training.session() as run:\n"
        "    model = torch.nn.Linear(1, 1).to(run.device)\n"
        "    run.track(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))\n"
        "    for batch in run.steps([torch.ones(2)], total=1):\n"
        "        while not os.path.exists('go/go.txt'): time.sleep(0.01)\n"
        "        turned = batch.to(run.device) * waterwheel.TURNS\n"
        "        print('turned', turned.tolist(), 'on', turned.device)\n"
        "        run.commit(loss=1.0)\n"
    )
    (tmp_path / "go.txt").write_text("go")
    with cloud.client() as client:
        client.add_environment(
            tmp_path / "requirements.txt", name="mill", wheels=tmp_path / "wheels"
        )
        code = client.upload(tmp_path / "code", name="turn", kind=ArtifactKind.CODE)
        spec = JobSpec(
            name="turn",
            kind=WorkloadKind.TRAIN,
            command=("python", "turn.py"),
            code=code.id,
            environment="mill",
            array="4",
            gang=on_npus(1),
        )
        job = f"{client.submit(spec).id}_4"
        until(lambda: any(rank.pid for rank in client.job(job).status.ranks))
        program = "import torch, waterwheel; print(torch.ones(2, device='npu').sum().device)"
        shell = cloud.karez("jobs", "attach", job, "--", "python", "-c", program)
        assert shell.stdout.splitlines()[-1] == "npu:0"  # behind the notice of the emulation
        client.copy_to_job(tmp_path / "go.txt", job, "go")
        client.wait(job, limit_s=40.0)
    assert "turned [12.0, 12.0] on npu:0" in cloud.karez("logs", job).stdout


def test_a_gang_trains_there_through_a_kill_and_its_receipt_says_so(cloud: Cloud) -> None:
    spec = JobSpec(
        name="chaos",
        kind=WorkloadKind.TRAIN,
        recipe="chaos-workload",
        settings={"steps": 60, "width": 32, "pause_ms": 20.0},
        gang=on_npus(2),
    )
    with cloud.client() as client:
        job = client.submit(spec)

        def now() -> Job:
            return client.job(job.id)

        until(lambda: now().status.step >= 5)
        kill_rank(client, job.id, 1)
        done = client.wait(job.id)
        card = client.artifact(done.status.outputs["weights"]).spec.facts
        (receipt,) = client.receipts(job.id)
        used = {row.device_kind for row in client.usage() if row.what == "chaos"}
    assert card["device"] == "npu:0, emulated"
    assert (receipt.emulated, receipt.steps_lost <= 1) == (True, True)
    assert used == {"emulated npu"}


@pytest.mark.deep
def test_training_that_has_spent_its_projects_limit_waits_and_goes_on_when_it_is_raised(
    cloud: Cloud,
) -> None:
    cloud.karez("prices", "set-device", "npu:emulated", "--hour", "1000")
    cloud.karez("projects", "create", "paid")
    cloud.karez("projects", "limits", "paid", "--spend", "2")
    spec = JobSpec(
        name="dear",
        project="paid",
        kind=WorkloadKind.TRAIN,
        recipe="chaos-workload",
        settings={"steps": 250, "width": 32, "pause_ms": 40.0},
        gang=on_npus(2),
        preemptible=True,
    )
    with cloud.client() as client:
        job = client.submit(spec).id
        until(lambda: "has spent its 2" in client.job(job).status.reason)
        reached = client.job(job).status.step
        assert "karez projects limits paid --spend" in cloud.karez("why", "dear").stdout
        cloud.karez("projects", "limits", "paid", "--spend", "-1")
        done = client.wait(job)
        assert 0 < reached < done.status.step
        until(lambda: len(client.ledger("paid")) == 2)
    shown = cloud.karez("usage", "verify", "--project", "paid").stdout
    assert "npu:emulated, 0.0" in shown
    assert "2 lines hold" in shown
    cloud.karez("prices", "remove-device", "npu:emulated")


def test_a_device_that_cannot_be_used_ends_the_job_with_the_reason(cloud: Cloud) -> None:
    spec = JobSpec(name="two", recipe="chaos-workload", gang=on_npus(1, "npu=2"))
    with cloud.client() as client:
        job = client.submit(spec)
        with pytest.raises(Failed, match="one emulated device"):
            client.wait(job.id)


def test_what_cannot_be_emulated_is_refused_before_anything_starts(tmp_path: Path) -> None:
    other = make_cloud(tmp_path / "home")
    said = other.karez("up", "--emulate", "gpu=1", check=False)
    assert said.returncode == 2
    assert "npu=COUNT" in said.stderr
    assert not (tmp_path / "home" / "cloud.json").exists()
