"""Write the files of an artifact into a local folder."""

import hashlib
import os
from pathlib import Path

from karez.core.artifacts import Artifact, FileEntry, FileMode, is_inside, problem_with_paths
from karez.core.errors import BadRequest, BrokenArtifact


def prepare(folder: Path, artifact: Artifact) -> None:
    """Make a folder for a download.

    Raises:
        BadRequest: It holds something.
        BrokenArtifact: The artifact's files cannot lie in one folder.
    """
    if problem := problem_with_paths(artifact.spec.files):
        raise BrokenArtifact(name=artifact.spec.name, problem=problem)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        problem = f"{folder} exists and is not an empty folder"
        raise BadRequest(problem=problem, fix="Name another folder.")
    folder.mkdir(parents=True, exist_ok=True)


def partial_of(folder: Path, entry: FileEntry) -> Path:
    """Where the bytes of a file are written until all are there."""
    target = folder / entry.path
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.parent / f"{entry.sha256[:16]}.partial"


def finish(folder: Path, entry: FileEntry, partial: Path) -> None:
    """Check a file's bytes, and give it its name and mode. Raises BrokenArtifact."""
    with partial.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    target = folder / entry.path
    if digest != entry.sha256:
        partial.unlink()
        raise BrokenArtifact(name=entry.path, problem="it arrived with other content")
    if entry.mode == FileMode.LINK:
        to = partial.read_text()
        partial.unlink()
        if not is_inside(entry.path, to):
            raise BrokenArtifact(name=entry.path, problem=f"it is a link to {to}, outside of it")
        target.symlink_to(to)
        return
    partial.replace(target)
    if entry.mode == FileMode.EXECUTABLE and os.name == "posix":
        target.chmod(target.stat().st_mode | 0o111)
