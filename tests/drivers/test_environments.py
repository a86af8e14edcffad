"""Environments of a node: made once from real wheels by pip, checked, shared, removed."""

import json
import threading
from pathlib import Path

import pytest

from karez.core.artifacts import FileEntry
from karez.core.errors import EnvironmentFailed
from karez.core.python_environments import PythonEnvironment
from karez.drivers.blobs import FsspecBlobs
from karez.drivers.steward.environments import SHARED, Environments, bin_of
from karez.drivers.steward.staging import BlobSource
from tests.wheels import make_wheel

pytestmark = pytest.mark.story


def stored(folder: Path, requirements: str, *wheels: Path) -> PythonEnvironment:
    """An environment whose files are in the blob store of a node."""
    blobs, entries = FsspecBlobs(str(folder / "blobs")), []
    (folder / "requirements.txt").write_text(requirements)
    for path in (folder / "requirements.txt", *wheels):
        with path.open("rb") as file:
            entry = blobs.put(file)
        name = path.name if path.suffix == ".txt" else f"wheels/{path.name}"
        entries.append(FileEntry(path=name, sha256=entry.sha256, size_bytes=entry.size_bytes))
    return PythonEnvironment(artifact="art-1", name="mine", files=tuple(entries))


@pytest.fixture
def made(tmp_path: Path) -> PythonEnvironment:
    wheel = make_wheel(tmp_path / "w", "waterwheel", "1.2", "TURNS = 12\n")
    return stored(tmp_path, "waterwheel==1.2\n", wheel)


def environments(folder: Path) -> Environments:
    return Environments(folder / "environments", BlobSource(folder=str(folder / "blobs")))


def test_it_is_made_once_checked_after_a_restart_and_removed_when_unused(
    tmp_path: Path, made: PythonEnvironment
) -> None:
    node, makings = environments(tmp_path), list[int]()
    found: list[Path | None] = []
    assert node.prepare(made, lambda: True) is None  # who waits no more is let go

    def ask() -> None:
        found.append(node.prepare(made, lambda: False, lambda: makings.append(1)))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    folder = found[0]
    assert folder is not None
    assert found == [folder] * 3
    ready = json.loads((folder / "karez-environment.json").read_text())
    assert "waterwheel.py" in ready["files"]
    (module,) = folder.glob("lib/*/site-packages/waterwheel.py")
    before = folder.stat().st_ino
    assert environments(tmp_path).prepare(made, lambda: False) == folder
    assert folder.stat().st_ino == before
    module.write_text("TURNS = 0\n")
    assert environments(tmp_path).prepare(made, lambda: False) == folder
    assert module.read_text() == "TURNS = 12\n"
    node.remove_unused([])
    node.remove_unused([folder], keep_s=0.0)
    assert bin_of(folder).exists()
    node.remove_unused([], keep_s=0.0)
    assert not folder.exists()


def test_what_cannot_be_made_says_what_pip_said_and_leaves_nothing(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "w", "waterwheel", "1.2", "TURNS = 12\n")
    wrong = stored(tmp_path, "waterwheel==9.9\n", wheel)
    node = environments(tmp_path)
    with pytest.raises(EnvironmentFailed, match=r"environment mine is not.*waterwheel==9.9"):
        node.prepare(wrong, lambda: False)
    assert list((tmp_path / "environments" / SHARED).iterdir()) == []
    tampered = stored(tmp_path, f"waterwheel==1.2 --hash=sha256:{'0' * 64}\n", wheel)
    with pytest.raises(EnvironmentFailed, match=r"HASHES|hash"):
        node.prepare(tampered, lambda: False)
