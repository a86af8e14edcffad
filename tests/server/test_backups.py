"""Backups hold all, cost what is new, and are refused where they are not whole."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from karez.core.artifacts import Artifact, ArtifactId, ArtifactKind, ArtifactSpec
from karez.core.backups import BackupSnapshot, Restored
from karez.core.errors import BadRequest, BrokenArtifact, NotFound, StartFailed, StorageFull
from karez.core.settings import Settings
from karez.drivers.blobs import FsspecBlobs
from karez.server.backups.backup import back_up, identity
from karez.server.backups.folder import writing
from karez.server.backups.restore import restore
from karez.server.home import RESTORING, Home
from karez.server.wiring import backup_folder, backup_source, restore_target
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
        return back_up(source, backup_folder(to), now, keep=keep, say=lambda *_: None)


@pytest.fixture
def cloud(tmp_path: Path) -> OldCloud:
    return OldCloud(tmp_path / "old")


def blob(backup: Path, digest: str) -> Path:
    return backup / "blobs" / digest[:2] / digest


def restored(backup: Path, home: Path) -> Restored:
    folder = backup_folder(backup)
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
    backup = backup_folder(tmp_path / "backup")
    first = cloud.add(b"first")
    cloud.back_up(backup.path, now=1.0)
    copied_at = blob(backup.path, first).stat().st_mtime_ns
    second = cloud.add(b"second")
    cloud.back_up(backup.path, now=2.0)
    assert blob(backup.path, first).stat().st_mtime_ns == copied_at
    cloud.store.artifacts.remove(ArtifactId("art-1"))
    cloud.back_up(backup.path, now=3.0, keep=1)
    assert [snapshot.made_at for snapshot in backup.snapshots] == [3.0]
    assert [blob(backup.path, one).exists() for one in (first, second)] == [False, True]


def test_a_blob_that_is_damaged_or_gone_is_named_and_the_rest_is_kept(
    cloud: OldCloud, tmp_path: Path
) -> None:
    good, damaged, gone = (cloud.add(text) for text in (b"good", b"damaged", b"gone"))
    for digest, change in ((damaged, lambda p: p.write_bytes(b"x")), (gone, Path.unlink)):
        path = cloud.blobs.local(digest)
        assert path is not None
        change(path)
    snapshot = cloud.back_up(tmp_path / "backup")
    assert set(snapshot.missing_blobs) == {damaged, gone}
    done = restored(tmp_path / "backup", tmp_path / "new")
    assert (done.blobs, set(done.missing_blobs)) == (1, {damaged, gone})
    assert FsspecBlobs(str(tmp_path / "new" / "blobs")).has(good)


def test_a_state_folder_without_its_database_is_not_backed_up(
    cloud: OldCloud, tmp_path: Path
) -> None:
    cloud.back_up(tmp_path / "backup")
    cloud.store.close()
    for file in cloud.home.path.glob("karez.db*"):
        file.unlink()
    with pytest.raises(BadRequest, match="holds no cloud"):
        cloud.back_up(tmp_path / "backup", now=2.0, keep=1)
    assert len(backup_folder(tmp_path / "backup").snapshots) == 1
    assert not (cloud.home.path / "karez.db").exists()


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
    harm(backup_folder(tmp_path / "backup").folder_of(snapshot.name))
    with pytest.raises(BrokenArtifact, match=told):
        restored(tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_blob_that_was_altered_in_the_backup_counts_as_missing(
    cloud: OldCloud, tmp_path: Path
) -> None:
    digest = cloud.add(b"rows")
    cloud.back_up(tmp_path / "backup")
    blob(tmp_path / "backup", digest).write_bytes(b"rowz")
    assert restored(tmp_path / "backup", tmp_path / "new").missing_blobs == (digest,)


def test_the_newest_stays_whatever_the_clock_said(cloud: OldCloud, tmp_path: Path) -> None:
    cloud.back_up(tmp_path / "backup", now=9e9)
    made = cloud.back_up(tmp_path / "backup", now=1.0, keep=1)
    assert backup_folder(tmp_path / "backup").snapshots == [made]


def test_a_damaged_snapshot_does_not_hide_another(cloud: OldCloud, tmp_path: Path) -> None:
    backup = backup_folder(tmp_path / "backup")
    first, second = (cloud.back_up(backup.path, now=now) for now in (1.0, 2.0))
    (backup.folder_of(first.name) / "manifest.json").write_text("")
    assert backup.find(second.name) == second
    copy = backup.folder_of("copy")
    shutil.copytree(backup.folder_of(second.name), copy)
    with pytest.raises(BrokenArtifact, match="it is the one of"):
        backup.find("copy")


def test_a_restore_that_was_killed_is_begun_again_and_no_cloud_starts_on_it(
    cloud: OldCloud, tmp_path: Path
) -> None:
    cloud.back_up(tmp_path / "backup")
    (tmp_path / "new" / RESTORING).mkdir(parents=True)
    with pytest.raises(StartFailed, match="was broken off"):
        Home.of(Settings(home=str(tmp_path / "new")))
    restored(tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new" / RESTORING).exists()


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
        backup_folder(tmp_path / "backup").find("2001")
    taken = Settings(home="", database=f"sqlite:///{cloud.home.path / 'karez.db'}")
    folder = backup_folder(tmp_path / "backup")
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
        assert len(backup_folder(disk / "backup").snapshots) == 1
        filler.unlink()
        cloud.back_up(disk / "backup", now=3.0)
        assert len(backup_folder(disk / "backup").snapshots) == 2


def test_one_backup_at_a_time_is_made_in_a_folder(cloud: OldCloud, tmp_path: Path) -> None:
    same = identity(cloud.home.path)
    cloud.back_up(tmp_path / "backup")
    with (
        writing(backup_folder(tmp_path / "backup"), same),
        pytest.raises(BadRequest, match="in use"),
    ):
        cloud.back_up(tmp_path / "backup", now=2.0)
    with (
        writing(backup_folder(tmp_path / "backup"), same),
        pytest.raises(BadRequest, match="in use"),
    ):
        restored(tmp_path / "backup", tmp_path / "new")
    cloud.back_up(tmp_path / "backup", now=2.0)
    other = OldCloud(tmp_path / "other")
    other.home.pepper.write_text("another")
    with pytest.raises(BadRequest, match="of another cloud"):
        other.back_up(tmp_path / "backup", now=3.0)
    with pytest.raises(BadRequest, match="inside the state folder"):
        cloud.back_up(cloud.home.path / "backup")


def test_a_part_of_the_state_folder_on_another_disk_is_copied(
    cloud: OldCloud, tmp_path: Path
) -> None:
    (cloud.home.path / "logs").rename(tmp_path / "elsewhere")
    (cloud.home.path / "logs").symlink_to(tmp_path / "elsewhere")
    cloud.home.pepper.rename(tmp_path / "mounted")
    cloud.home.pepper.symlink_to(tmp_path / "mounted")
    snapshot = cloud.back_up(tmp_path / "backup")
    assert [file.path for file in snapshot.files] == ["logs/workloads/job-1/0", "pepper"]
