"""Reads and removes files that a job may change at any moment, and is not led elsewhere by it."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

from karez.drivers import linux
from karez.drivers.programs import run_program

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY  # a pipe would keep us waiting
_SPARSE_BYTES, _SPARSE_SHARE = 64 << 20, 100
_REMOVE_S = 600.0


def open_inside(path: Path, folder: Path) -> BufferedReader:
    """Open a file in a folder of a job, whose links lead wherever the job wants.

    Args:
        path: The file, below the folder.
        folder: The folder, whose own path no job can change.

    Raises:
        FileNotFoundError: It is gone, is no regular file, consists of hardly anything but holes, or
            is not in the folder.
    """
    base = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fd = linux.open_beneath(base, str(path.relative_to(folder)), _FLAGS)
    except OSError as error:
        raise FileNotFoundError(errno.ENOENT, f"it is not in {folder}", str(path)) from error
    finally:
        os.close(base)
    found = os.fstat(fd)
    holds = found.st_blocks * 512
    is_hollow = found.st_size > max(_SPARSE_BYTES, holds * _SPARSE_SHARE)
    if not stat.S_ISREG(found.st_mode) or is_hollow:
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, "it is no file with content", str(path))
    return os.fdopen(fd, "rb")


def files_below(folder: Path) -> list[Path]:
    """The files below a folder, in order; links to folders are not followed."""
    return sorted(path for path in paths_below(folder) if path.is_file())


def paths_below(folder: Path) -> Iterator[Path]:
    """What is below a folder, however deep; links to folders are not followed."""
    left = [folder]
    while left:
        with suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                yield Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    left.append(Path(entry.path))


def stays_inside(path: Path, folder: Path) -> bool:
    """Whether a file is not a link out of a folder: a job chooses where its links lead."""
    return path.resolve().is_relative_to(folder.resolve())


def remove_tree(folder: Path) -> None:
    """Remove a folder of a job that has ended, however deep it is."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:
        run_program(["rm", "-rf", "--one-file-system", "--", str(folder)], _REMOVE_S)
