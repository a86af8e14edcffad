"""What a job does to its files stays with it; and bytes that are laid out are those that were."""

import stat
from pathlib import Path

import pytest

from karez.core.artifacts import FileEntry, FileMode, problem_with_paths
from karez.core.errors import BrokenArtifact
from karez.core.processes import Staged
from karez.core.workloads import WorkloadId
from karez.drivers.steward.input_folders import InputFolders
from karez.drivers.steward.staging import BlobSource, lay_out
from tests.drivers.test_steward import A, exit_of, spec
from tests.fakes import DirectFabric

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def stored(folder: Path, text: str, path: str, mode: FileMode = FileMode.FILE) -> FileEntry:
    source = BlobSource(folder=str(folder / "blobs"))
    (folder / "source").write_text(text)
    entry = source.store(folder / "source", folder)
    return FileEntry(path=path, sha256=entry.sha256, size_bytes=entry.size_bytes, mode=mode)


def test_what_a_job_writes_into_its_code_and_inputs_reaches_nobody_else(tmp_path: Path) -> None:
    fabric = DirectFabric(tmp_path, ["a"])
    try:
        code, data = stored(tmp_path, "print(1)\n", "main.py"), stored(tmp_path, "rows\n", "d.txt")
        staged = (Staged(artifact="art-1", folder="in", files=(data,)),)
        poison = (
            "echo poison >> main.py; echo poison > $KAREZ_INPUTS/in/d.txt;"
            " chmod 666 $KAREZ_INPUTS/in/d.txt; echo poison >> $KAREZ_INPUTS/in/d.txt"
        )
        fabric.start(A, spec("sh", "-c", poison, code=(code,), inputs=staged))
        assert exit_of(fabric).data["code"] == 0
        source = BlobSource(folder=str(tmp_path / "blobs"))
        for number, entry in enumerate((code, data)):  # raises where a blob has changed
            source.fetch(entry.sha256, tmp_path / str(number))
        assert (tmp_path / "0").read_text() + (tmp_path / "1").read_text() == "print(1)\nrows\n"
    finally:
        fabric.close()


def test_bytes_that_have_changed_in_the_store_are_never_laid_out(tmp_path: Path) -> None:
    entry = stored(tmp_path, "rows\n", "d.txt")
    blob = tmp_path / "blobs" / entry.sha256[:2] / entry.sha256
    blob.write_text("ROWS\n")
    with pytest.raises(BrokenArtifact, match="karez doctor --deep"):
        lay_out(BlobSource(folder=str(tmp_path / "blobs")), [entry], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_inputs_are_laid_out_once_for_all_processes_of_a_workload(tmp_path: Path) -> None:
    entry = stored(tmp_path, "rows\n", "d.txt")
    folders = InputFolders(tmp_path / "work", BlobSource(folder=str(tmp_path / "blobs")))
    one, other = WorkloadId("job-1"), WorkloadId("job-2")
    staged = (Staged(artifact="art-1", folder="in", files=(entry,)),)
    first = folders.lay_out(one, staged)
    (first / "in" / "d.txt").write_text("own\n")
    assert folders.lay_out(one, staged) == first
    assert (first / "in" / "d.txt").read_text() == "own\n"
    assert (folders.lay_out(other, staged) / "in" / "d.txt").read_text() == "rows\n"
    moved = (Staged(artifact="art-1", folder="elsewhere", files=(entry,)),)
    assert (folders.lay_out(one, moved) / "elsewhere" / "d.txt").read_text() == "rows\n"
    folders.drop(one)
    assert (folders.lay_out(one, staged) / "in" / "d.txt").read_text() == "rows\n"


def test_files_keep_their_modes_and_links(tmp_path: Path) -> None:
    entries = [
        stored(tmp_path, "#!/bin/sh\n", "bin/run.sh", FileMode.EXECUTABLE),
        stored(tmp_path, "../bin/run.sh", "sub/link", FileMode.LINK),
        FileEntry(path="empty", sha256=EMPTY, size_bytes=0, mode=FileMode.FOLDER),
    ]
    source, out = BlobSource(folder=str(tmp_path / "blobs")), tmp_path / "out"
    for _ in range(2):  # a second time changes nothing
        lay_out(source, entries, out)
        assert stat.S_IMODE((out / "bin" / "run.sh").stat().st_mode) & 0o111 == 0o111
        assert (out / "sub" / "link").readlink() == Path("../bin/run.sh")
        assert list((out / "empty").iterdir()) == []


@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", "../..", "a/../../../x"])
def test_a_link_out_of_an_artifact_is_not_made(tmp_path: Path, target: str) -> None:
    entry = stored(tmp_path, target, "sub/link", FileMode.LINK)
    with pytest.raises(BrokenArtifact, match="outside"):
        lay_out(BlobSource(folder=str(tmp_path / "blobs")), [entry], tmp_path / "out")
    assert not (tmp_path / "out" / "sub" / "link").is_symlink()


def test_nothing_lies_below_a_link_or_a_file_of_an_artifact() -> None:
    link = FileEntry(path="a", sha256=EMPTY, size_bytes=0, mode=FileMode.LINK)
    below = FileEntry(path="a/b/c", sha256=EMPTY, size_bytes=0)
    assert problem_with_paths((link, below)).startswith("'a/b/c' lies below 'a'")
    assert problem_with_paths((below, below)) == "a path is there twice"
    assert problem_with_paths((below,)) == ""
