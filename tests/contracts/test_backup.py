"""A cloud that is lost is made again from its backup, and its running job goes on."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from karez.client import calls
from karez.core.artifacts import ArtifactKind
from karez.core.gangs import GangSpec
from karez.core.jobs import Job, JobSpec
from karez.core.resource_syntax import parse_resource_request
from karez.core.workloads import State, WorkloadKind
from karez.store.dump import SqlDump
from karez.store.sql import SqlStore
from tests.collector import Collector, collecting
from tests.contracts.cloud import Cloud, batch, kill_all, make_cloud, until
from tests.contracts.gang import Bench, Gang

pytestmark = pytest.mark.story
STEPS = 600
TRAIN = f"""
import time
from pathlib import Path
import torch
from karez import training
with training.session(seed=1, snapshot_every=1) as run:
    model = torch.nn.Linear(8, 1).to(run.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    run.track(model=model, optimizer=optimizer)
    print("goes on from step", run.step, "on", run.device)
    rows = [torch.full((4, 8), float(n % 7)) for n in range({STEPS})]
    for batch in run.steps(rows, total={STEPS}):
        loss = (model(batch.to(run.device)) - 1).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.commit(loss=loss)
        while run.step == {STEPS // 2} and not Path("GATE").exists():
            time.sleep(0.01)
"""
"""Waits halfway for a file: it must not end before its cloud is lost."""
NPUS = ("--emulate", "npu=2")


def lose(cloud: Cloud) -> None:
    """The host loses its power: every process at once, and nobody tidies up."""
    supervisor = psutil.Process(int(str(cloud.address()["pid"])))
    kill_all([*supervisor.children(recursive=True), supervisor])
    supervisor.wait()
    shutil.rmtree((cloud.home / "node" / "memory.path").read_text(), ignore_errors=True)


def training(code: str) -> JobSpec:
    return JobSpec(
        name="goes-on",
        kind=WorkloadKind.TRAIN,
        command=("python", "train.py"),
        code=code,
        gang=GangSpec(min=2, want=2, each=(parse_resource_request("npu=1"),)),
    )


def test_a_lost_cloud_is_restored_and_its_training_goes_on_from_what_was_stored(
    tmp_path: Path,
) -> None:
    code, backups, gate = tmp_path / "code", tmp_path / "backups", tmp_path / "gates" / "gate"
    code.mkdir()
    gate.parent.mkdir()
    bound = str(gate.parent)
    (code / "train.py").write_text(TRAIN.replace("GATE", str(gate)))
    patient = {"KAREZ_CHECKPOINT_S": "0.5", "KAREZ_HANG_S": "120"}  # its step waits for the gate
    old = make_cloud(tmp_path / "old", KAREZ_BIND_PATHS=bound, **patient)
    old.karez("up", *NPUS)
    with old.client() as client:
        client.put_secret("default", "TOKEN", "12345")
        artifact = client.upload(code, name="code", kind=ArtifactKind.CODE)
        done = client.wait(client.submit(batch("done", "true")).id)
        job = client.submit(training(artifact.id))
        database = SqlStore(f"sqlite:///{old.home / 'karez.db'}")
        until(lambda: bool(database.history.newest_checkpoint(job.id, (0, 1))))
        database.close()
    old.karez("backup", str(backups))
    first = json.loads(old.karez("backup", str(backups), "--keep", "1", "--json").stdout)
    assert [path.name for path in (backups / "snapshots").iterdir()] == [first["name"]]
    public = tmp_path / "receipts.pub"
    shutil.copy(old.home / "receipts.pub", public)
    lose(old)
    shutil.rmtree(old.home)
    gate.touch()
    with collecting() as collector:
        new = make_cloud(
            tmp_path / "new", KAREZ_OTLP_ENDPOINT=collector.url, KAREZ_BIND_PATHS=bound
        )
        check_restore(new, backups, job, done, public)
        names = names_of(collector, job)
    assert {"job", "queue", "run", "train", "recovery", "resume"} <= names


def check_restore(new: Cloud, backups: Path, job: Job, done: Job, public: Path) -> None:
    said = new.karez("restore", str(backups), "--home", str(new.home)).stdout
    assert f"karez up --home {new.home}" in said
    new.karez("up", *NPUS)
    try:
        check_restored(new, job, done, public)
    finally:
        new.karez("down")


def names_of(collector: Collector, job: Job) -> set[str]:
    """Names of the spans of a job's trace that the collector has."""
    trace = hashlib.sha256(f"karez/{job.id}".encode()).hexdigest()[:32]
    return {name for ident, *_, name in collector.spans if ident == trace}


def check_restored(cloud: Cloud, job: Job, done: Job, public: Path) -> None:
    with cloud.client() as client:
        assert client.job(done.id).state == State.SUCCEEDED
        ended = client.wait(job.id, limit_s=120)
        assert (ended.state, ended.status.step) == (State.SUCCEEDED, STEPS)
        said = cloud.karez("logs", job.id, "--grep", "goes on from step").stdout
        assert "goes on from step" in said
        assert "on npu:0" in said
        receipts = client.call(calls.receipts(job.id))
        assert [receipt.rung for receipt in receipts] == ["restart"]
        assert receipts[0].step_restored > 0
        token = 'test "$TOKEN" = 12345'  # the sealed secret opens with the pepper of the backup
        again = client.submit(batch("secret", "sh", "-c", token, secrets=("TOKEN",)))
        assert client.wait(again.id).state == State.SUCCEEDED
    page = cloud.home / "trace.html"
    cloud.karez("jobs", "trace", job.id, "--page", str(page))
    drawn = page.read_text()
    assert all(f">{name}</text>" in drawn for name in ("queue", "start", "train", "recovery"))
    assert receipts[0].cause in drawn.partition("What went wrong")[2]
    told = cloud.home / "receipts.json"
    told.write_text(cloud.karez("receipts", "export", job.id).stdout)
    cloud.karez("receipts", "verify", str(told), "--key", str(public))


def test_ranks_that_still_run_are_adopted_by_a_control_with_the_restored_database(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, ["a"])
    try:
        gate = bench.fabric.shared / "gate"
        gang = Gang(bench, steps=200, more={"gate_at": 100, "gate": str(gate)}).start()
        gang.reach(20)
        pids = {seat: info.pid for seat, info in gang.processes().items()}
        source = SqlDump(f"sqlite:///{tmp_path / 'k.db'}")
        dump = source.dump(tmp_path / "dump")
        source.close()
        gang.abandon()
        bench.store.close()
        url = f"sqlite:///{tmp_path / 'restored.db'}"
        target = SqlDump(url)
        target.load(tmp_path / "dump", dump)
        target.close()
        bench.store = SqlStore(url)
        bench.deps = replace(bench.deps, store=bench.store)
        gang.start().reach(60)
        assert {seat: info.pid for seat, info in gang.processes().items()} == pids
        gate.touch()
        done = gang.finish()
        assert (done.state, done.status.step) == (State.SUCCEEDED, 200)
    finally:
        bench.close()
