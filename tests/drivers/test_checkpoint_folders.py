"""A folder of a job's own checkpoints on a node: laid out once a start, stored when still."""

import os
from pathlib import Path

import pytest

from karez.core.artifacts import FileEntry
from karez.core.workloads import WorkloadId
from karez.drivers.steward.checkpoint_folders import CheckpointFolders
from karez.drivers.steward.staging import BlobSource

JOB = WorkloadId("job-1")


@pytest.fixture
def blobs(tmp_path: Path) -> BlobSource:
    (tmp_path / "blobs").mkdir()
    return BlobSource(folder=str(tmp_path / "blobs"))


@pytest.fixture
def folders(tmp_path: Path, blobs: BlobSource) -> CheckpointFolders:
    return CheckpointFolders(tmp_path / "work", blobs)


def stored(folders: CheckpointFolders, *, start: str = "1") -> tuple[FileEntry, ...]:
    listing = folders.store(JOB, start, 0.0)
    assert listing is not None
    return listing.files


def text(blobs: BlobSource, entry: FileEntry) -> str:
    return (Path(blobs.folder) / entry.sha256[:2] / entry.sha256).read_text()


def test_what_a_script_wrote_is_there_for_the_next_start_and_may_be_written_to(
    folders: CheckpointFolders, blobs: BlobSource
) -> None:
    folders.lay_out(JOB, "1", ())
    (folders.folder(JOB) / "step").mkdir()
    (folders.folder(JOB) / "step" / "model.pt").write_text("one")
    files = stored(folders)
    folders.lay_out(JOB, "2", files)
    file = folders.folder(JOB) / "step" / "model.pt"
    assert file.read_text() == "one"
    with file.open("w") as opened:  # in place
        opened.write("two")
    assert text(blobs, files[0]) == "one"
    (changed,) = stored(folders, start="2")
    assert (changed.path, text(blobs, changed)) == ("step/model.pt", "two")


def test_the_second_process_of_a_start_finds_what_the_first_wrote(
    folders: CheckpointFolders,
) -> None:
    folders.lay_out(JOB, "1", ())
    (folders.folder(JOB) / "a").write_text("mine")
    folders.lay_out(JOB, "1", ())
    assert (folders.folder(JOB) / "a").read_text() == "mine"


def test_what_an_earlier_start_left_is_not_taken_for_this_ones(folders: CheckpointFolders) -> None:
    assert folders.store(JOB, "1", 0.0) is None
    folders.lay_out(JOB, "1", ())
    (folders.folder(JOB) / "old").write_text("old")
    assert folders.store(JOB, "2", 0.0) is None
    folders.lay_out(JOB, "2", ())
    assert stored(folders, start="2") == ()


def test_changed_and_removed_are_told_apart_from_what_the_node_began_with(
    folders: CheckpointFolders,
) -> None:
    folders.lay_out(JOB, "1", ())
    for name in ("kept", "gone", "new"):
        (folders.folder(JOB) / name).write_text(name)
    folders.lay_out(JOB, "2", stored(folders))
    (folders.folder(JOB) / "new").write_text("newer")
    (folders.folder(JOB) / "gone").unlink()
    listing = folders.store(JOB, "2", 0.0)
    assert listing is not None
    assert {file.path for file in listing.files} == {"kept", "new"}
    assert listing.changed == {"new"}
    assert listing.removed == {"gone"}


def test_a_folder_that_is_being_written_is_left_alone(folders: CheckpointFolders) -> None:
    folders.lay_out(JOB, "1", ())
    file = folders.folder(JOB) / "a"
    file.write_text("half")
    listing = folders.store(JOB, "1", 30.0)
    assert listing is not None
    assert not listing.is_settled
    os.utime(file, (1.0, 1.0))
    listing = folders.store(JOB, "1", 30.0)
    assert listing is not None
    assert [entry.path for entry in listing.files] == ["a"]


class Written(BlobSource):
    """A store whose files are written to just when they have been read."""

    def store_changing(self, source: Path, within: Path, scratch: Path) -> FileEntry:
        entry = super().store_changing(source, within, scratch)
        source.write_text("longer than before")
        return entry


def test_a_file_that_changes_while_it_is_read_keeps_its_earlier_version(
    tmp_path: Path, blobs: BlobSource
) -> None:
    folders = CheckpointFolders(tmp_path / "work", blobs)
    folders.lay_out(JOB, "1", ())
    file = folders.folder(JOB) / "a"
    file.write_text("first")
    before = stored(folders)
    file.write_text("second")
    folders._blobs = Written(folder=blobs.folder)
    assert stored(folders) == before
    folders._blobs = blobs
    (last,) = stored(folders)
    assert text(blobs, last) == "longer than before"
