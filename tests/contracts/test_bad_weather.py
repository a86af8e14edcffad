"""No room, no Ray: what a user is told, and that nothing half-done stays."""

from pathlib import Path

import pytest

from karez.core.errors import StorageFull
from karez.core.jobs import Job, JobSpec
from karez.core.workloads import EndReason, State, WorkloadId
from karez.drivers.blobs import FsspecBlobs
from karez.store.sql import SqlStore
from karez.transport.snapshot_file import SnapshotFile
from tests.contracts.cloud import make_cloud
from tests.contracts.gang import Bench, Gang
from tests.disks import fill, needs_root, small_disk

pytestmark = pytest.mark.story


def queued(number: int) -> Job:
    spec = JobSpec(name=f"n{number}", command=("true",))
    return Job(id=WorkloadId(f"job-{number}"), spec=spec, owner="me", created_at=1.0)


def add_until_full(store: SqlStore) -> int:
    for number in range(10_000):
        try:
            store.workloads.add_job(queued(number))
        except StorageFull:
            return number
    raise AssertionError("the disk is never full")


@needs_root
def test_a_full_disk_under_the_database_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        store = SqlStore(f"sqlite:///{disk / 'k.db'}")
        filler = fill(disk)
        kept = add_until_full(store)
        assert len(store.workloads.jobs(projects=None, limit=20_000)) == kept
        filler.unlink()
        store.workloads.add_job(queued(kept))
        assert len(store.workloads.jobs(projects=None, limit=20_000)) == kept + 1
        store.close()


@needs_root
def test_a_full_disk_under_the_blobs_keeps_no_part_of_one(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * (2 << 20))
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        blobs = FsspecBlobs(str(disk))
        with big.open("rb") as source, pytest.raises(StorageFull):
            blobs.put(source)
        assert not list(disk.rglob("*"))


@needs_root
def test_full_shared_memory_ends_a_job_with_the_reason_in_its_log(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ["a"])
    gang = Gang(bench)
    (steward,) = bench.fabric.stewards.values()
    with small_disk(steward.memory / gang.id, 1 << 16):
        with pytest.raises(OSError, match="No space left"):
            SnapshotFile.create(steward.memory / gang.id / "mine", 1 << 20)
        done = gang.start().finish()
    bench.close()
    assert done.state == State.FAILED
    assert done.status.end == EndReason.USER_ERROR
    assert "There is no room left under" in bench.logs.text()


@needs_root
def test_a_cloud_does_not_start_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "home", 1 << 20) as home:
        refused = make_cloud(home).karez("up", check=False)
        assert refused.returncode == 1
        assert "There is no room left under" in refused.stderr
        assert not (home / "cloud.json").exists()


def test_a_cloud_without_ray_says_what_to_install(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "sitecustomize.py").write_text("import sys\nsys.modules['ray'] = None\n")
    cloud = make_cloud(tmp_path / "home", PYTHONPATH=str(absent))
    refused = cloud.karez("up", check=False)
    assert refused.returncode == 1
    assert "Ray is not installed" in refused.stderr
    assert "pip install" in refused.stderr
    assert not (cloud.home / "cloud.json").exists()
