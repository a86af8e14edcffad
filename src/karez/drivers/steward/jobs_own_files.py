"""Reads files that a job may change at any moment, without being led out of the job's folder."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


def open_inside(path: Path, folder: Path) -> BufferedReader:
    """Open a file in a folder of a job, whose links lead wherever the job wants.

    What counts is where the opened file is, not where its path led a moment before.

    Args:
        path: The file.
        folder: The folder, whose own path no job can change.

    Raises:
        FileNotFoundError: It is gone, is no regular file, or is not in the folder.
        OSError: It cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would keep us waiting
    try:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        is_inside = Path(os.readlink(f"/proc/self/fd/{fd}")).is_relative_to(folder.resolve())
        if not (is_file and is_inside):
            raise FileNotFoundError(errno.ENOENT, f"it is no file in {folder}", str(path))
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def files_below(folder: Path) -> list[Path]:
    """The files below a folder, in order; links to folders are not followed."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def stays_inside(path: Path, folder: Path) -> bool:
    """Whether a file is not a link out of a folder: a job chooses where its links lead."""
    return path.resolve().is_relative_to(folder.resolve())
