"""Tar archives of what is copied into and out of jobs."""

import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from karez.core.errors import BadRequest


def pack(source: Path, file: IO[bytes]) -> None:
    """Write a file or folder as an archive, and go back to its start. Raises BadRequest."""
    if not source.exists():
        raise BadRequest(problem=f"{source} is not there")
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(source, arcname=source.resolve().name)
    file.seek(0)


def unpack(archive: IO[bytes], target: Path) -> list[Path]:
    """Lay an archive out, as `cp` does: into a folder that is there, else under the target's name.

    Nothing is written outside of the target, and nothing at all if the archive is damaged.

    Returns:
        The files and folders that were made.

    Raises:
        BadRequest: The archive cannot be laid out there.
    """
    into = target if target.is_dir() else target.parent
    if not into.is_dir():
        raise BadRequest(problem=f"{into} is no folder", fix="Make it first.")
    archive.seek(0)
    with tempfile.TemporaryDirectory(prefix=".karez-copy-", dir=into) as part:
        try:
            with tarfile.open(fileobj=archive, mode="r") as packed:
                packed.extractall(part, filter="data")
        except (tarfile.TarError, OSError) as error:
            raise BadRequest(problem=f"cannot lay it out in {into}: {error}") from error
        made = []
        for source in sorted(Path(part).iterdir()):
            place = into / source.name if target.is_dir() else target
            made.append(_move(source, place))
    return made


def _move(source: Path, place: Path) -> Path:
    """Move a file or folder to a place; files that are there are replaced, folders are filled."""
    if source.is_dir() and not source.is_symlink():
        if place.is_file():
            raise BadRequest(problem=f"{place} is a file", fix="Name another place.")
        shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
    else:
        source.replace(place)
    return place
