"""Writes changes to files: each file in one step, and all files or none."""

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from karez.core.errors import BadRequest
from karez.migration.changes import Change


def write(root: Path, changes: Sequence[Change]) -> None:
    """Write all files; if one cannot be written, restore the others.

    Raises:
        BadRequest: The folder cannot be written to.
    """
    base = root if root.is_dir() else root.parent
    ready: list[tuple[str, Path]] = []
    done: list[tuple[Path, str | None]] = []
    try:
        for change in changes:
            ready.append((_temporary_copy(base / change.path, change.after), base / change.path))
        for change, (temporary, path) in zip(changes, ready, strict=True):
            done.append((path, change.before))
            os.replace(temporary, path)
    except OSError as error:
        for path, before in done:
            with contextlib.suppress(OSError):
                path.unlink() if before is None else os.replace(_temporary_copy(path, before), path)
        raise BadRequest(
            problem=f"{error.filename or base} cannot be written: {error.strerror}",
            fix="Nothing was changed. Rewrite a copy that you own.",
        ) from error
    finally:
        for temporary, _ in ready:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _temporary_copy(path: Path, text: str) -> str:
    """Write a temporary file beside a path, with the same permissions. Raises OSError."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    mode = path.stat().st_mode if path.exists() else 0o644
    os.chmod(name, mode & 0o7777)
    return name
