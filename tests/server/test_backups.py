"""Backups hold all, cost what is new, and are refused where they are not whole."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from karez.core.artifacts import Artifact, ArtifactId, ArtifactKind, ArtifactSpec
from karez.core.backups import BackupSnapshot
from karez.core.errors import BadRequest, BrokenArtifact, NotFound, StorageFull
from karez.core.settings import Settings
from karez.drivers.blobs import FsspecBlobs
from karez.server.backups.backup import back_up
from karez.server.backups.folder import BackupFolder, open_folder
from karez.server.backups.restore import restore
from karez.server.home import Home
from karez.server.wiring import backup_source, restore_target
from karez.store.sql import SqlStore
from tests.disks import fill, needs_root, small_disk


class OldCloud:
    """A state folder with a database, blobs and keys."""

    def __init__(self, folder: Path) -> None:
        self.home = Home.of(Settings(home=str(folder)))
        self.store = SqlStore(f"sqlite:///{folder / 'karez.db'}")
        self.blobs = FsspecBlobs(str(folder / "blobs"))
        self.home.pepper.write_text("pepper")
        (folder / "node").mkdir()
        (folder / "node" / "work").write_text("of a process")
        (folder / "logs" / "workloads" / "job-1").mkdir(parents=True)
        (folder / "logs" / "workloads" / "job-1" / "0").write_text("step 1\n")
        self.count = 0

    def add(self, content: bytes) -> str:
        """An artifact of one file; returns the digest of its blob."""
        self.count += 1
        entry = self.blobs.put(io.BytesIO(content))
        spec = ArtifactSpec(name=f"a{self.count}", kind=ArtifactKind.DATASET, files=(entry,))
        ident = ArtifactId(f"art-{self.count}")
        self.store.artifacts.add(Artifact(id=ident, spec=spec, owner="me", created_at=1.0))
        return entry.sha256

    def back_up(self, to: Path, *, now: float = 1.0, keep: int = 0) -> BackupSnapshot:
        source = backup_source(
            Settings(home=str(self.home.path)), self.home, with_database=True, with_blobs=True
        )
        return back_up(source, to, now, keep=keep, say=lambda *_: None)


@pytest.fixture
def cloud(tmp_path: Path) -> OldCloud:
    return OldCloud(tmp_path / "old")


def restored(backup: Path, home: Path) -> object:
    folder = BackupFolder(backup)
    target = restore_target(Settings(home=str(home)), home)
    return restore(folder, folder.find(""), target, lambda *_: None)


def test_what_was_backed_up_is_there_again(cloud: OldCloud, tmp_path: Path) -> None:
    digest = cloud.add(b"rows")
    snapshot = cloud.back_up(tmp_path / "backup")
    assert [file.path for file in snapshot.files] == ["logs/workloads/job-1/0", "pepper"]
    restored(tmp_path / "backup", tmp_path / "new")
    new = tmp_path / "new"
    assert (new / "pepper").read_text() == "pepper"
    assert new.stat().st_mode & 0o777 == 0o700
    assert FsspecBlobs(str(new / "blobs")).open(digest).read() == b"rows"
    store = SqlStore(f"sqlite:///{new / 'karez.db'}")
    assert store.artifacts.find("art-1") is not None
    store.close()
    assert not list(new.glob("*.partial"))


def test_a_second_snapshot_copies_what_is_new_and_old_ones_make_room(
    cloud: OldCloud, tmp_path: Path
) -> None:
    backup = BackupFolder(tmp_path / "backup")
    first = cloud.add(b"first")
    cloud.back_up(backup.path, now=1.0)
    copied_at = backup.blob(first).stat().st_mtime_ns
    second = cloud.add(b"second")
    cloud.back_up(backup.path, now=2.0)
    assert backup.blob(first).stat().st_mtime_ns == copied_at
    cloud.store.artifacts.remove(ArtifactId("art-1"))
    cloud.back_up(backup.path, now=3.0, keep=1)
    assert [snapshot.made_at for snapshot in backup.snapshots] == [3.0]
    assert [backup.blob(one).exists() for one in (first, second)] == [False, True]


def test_a_blob_that_is_damaged_or_gone_is_named_and_no_snapshot_is_left(
    cloud: OldCloud, tmp_path: Path
) -> None:
    digest = cloud.add(b"rows")
    path = cloud.blobs.local(digest)
    assert path is not None
    path.write_bytes(b"rowz")
    with pytest.raises(BrokenArtifact, match=f"{digest}.*damaged"):
        cloud.back_up(tmp_path / "backup")
    path.unlink()
    with pytest.raises(BrokenArtifact, match=f"{digest}.*does not have it"):
        cloud.back_up(tmp_path / "backup")
    assert BackupFolder(tmp_path / "backup").snapshots == []
    assert not list((tmp_path / "backup" / "snapshots").iterdir())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda where: cut(where / "home" / "pepper"), "pepper.*not what the backup wrote"),
        (lambda where: (where / "home" / "pepper").unlink(), "pepper.*missing from the backup"),
        (lambda where: cut(where / "tables" / "artifacts.jsonl.gz"), "artifacts.*not what"),
        (lambda where: cut(where / "manifest.json"), "manifest.json.*cannot be read"),
    ],
    ids=["altered", "missing", "table", "manifest"],
)
def test_a_backup_that_was_altered_is_refused_and_nothing_of_it_stays(
    cloud: OldCloud, tmp_path: Path, harm: Callable[[Path], None], told: str
) -> None:
    snapshot = cloud.back_up(tmp_path / "backup")
    harm(BackupFolder(tmp_path / "backup").folder_of(snapshot.name))
    with pytest.raises(BrokenArtifact, match=told):
        restored(tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_blob_that_was_altered_in_the_backup_is_refused(cloud: OldCloud, tmp_path: Path) -> None:
    digest = cloud.add(b"rows")
    cloud.back_up(tmp_path / "backup")
    BackupFolder(tmp_path / "backup").blob(digest).write_bytes(b"rowz")
    with pytest.raises(BrokenArtifact, match=digest):
        restored(tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_holds_something_already_is_left_alone(cloud: OldCloud, tmp_path: Path) -> None:
    cloud.back_up(tmp_path / "backup")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(BadRequest, match="is not empty"):
        restored(tmp_path / "backup", tmp_path / "full")
    with pytest.raises(BadRequest, match="is not a backup"):
        cloud.back_up(tmp_path / "full")
    with pytest.raises(BadRequest, match="is not a backup folder"):
        restored(tmp_path / "full", tmp_path / "new")
    with pytest.raises(NotFound, match="snapshot"):
        BackupFolder(tmp_path / "backup").find("2001")
    taken = Settings(home="", database=f"sqlite:///{cloud.home.path / 'karez.db'}")
    folder = BackupFolder(tmp_path / "backup")
    with pytest.raises(BadRequest, match="has tables already"):
        restore(folder, folder.find(""), restore_target(taken, tmp_path / "new"), lambda *_: None)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


@needs_root
@pytest.mark.story
def test_a_full_disk_leaves_the_snapshots_before(cloud: OldCloud, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        cloud.back_up(disk / "backup")
        filler = fill(disk)
        cloud.add(b"x" * 100_000)
        with pytest.raises(StorageFull):
            cloud.back_up(disk / "backup", now=2.0)
        assert len(BackupFolder(disk / "backup").snapshots) == 1
        filler.unlink()
        cloud.back_up(disk / "backup", now=3.0)
        assert len(BackupFolder(disk / "backup").snapshots) == 2


def test_one_backup_at_a_time_is_made_in_a_folder(cloud: OldCloud, tmp_path: Path) -> None:
    with open_folder(tmp_path / "backup"), pytest.raises(BadRequest, match="Another backup"):
        cloud.back_up(tmp_path / "backup")
    cloud.back_up(tmp_path / "backup")


def test_a_part_of_the_state_folder_on_another_disk_is_copied(
    cloud: OldCloud, tmp_path: Path
) -> None:
    (cloud.home.path / "logs").rename(tmp_path / "elsewhere")
    (cloud.home.path / "logs").symlink_to(tmp_path / "elsewhere")
    snapshot = cloud.back_up(tmp_path / "backup")
    assert "logs/workloads/job-1/0" in [file.path for file in snapshot.files]
