"""The git working tree of a repository: checks, branches and commits."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from karez.core.errors import BadRequest
from karez.migration.changes import Change


def check_clean(root: Path) -> bool:
    """Check that a folder has no uncommitted changes; whether it is under git at all.

    Raises:
        BadRequest: There are uncommitted changes.
    """
    done = _git(root, "status", "--porcelain", "--", ".")
    if done is None or done.returncode:
        return False
    if done.stdout.strip():
        count = len(done.stdout.strip().splitlines())
        raise BadRequest(
            problem=f"{root} has {count} uncommitted changes",
            fix="Commit or stash them, or say --dirty.",
        )
    return True


def write_patch(root: Path, changes: Sequence[Change]) -> Path:
    """Write the changes as a patch that takes them back, for folders without git."""
    base = root if root.is_dir() else root.parent
    path = base / "karez-migrate.patch"
    number = 1
    while path.exists():
        number += 1
        path = base / f"karez-migrate-{number}.patch"
    path.write_text("".join(change.diff() for change in changes), newline="")
    return path


def switch_to(root: Path, branch: str) -> None:
    """Create a branch and switch to the branch. Raises BadRequest."""
    done = _git(root, "switch", "-c", branch)
    if done is None or done.returncode:
        problem = done.stderr.strip() if done else "git is not installed"
        raise BadRequest(problem=f"the branch {branch} could not be made: {problem}")


def commit(root: Path, changes: Sequence[Change], message: str) -> None:
    """Commit the changed files. Raises BadRequest."""
    for words in (("add", "--", *(c.path for c in changes)), ("commit", "-q", "-m", message)):
        done = _git(root, *words)
        if done is None or done.returncode:
            raise BadRequest(problem=f"git {words[0]} failed: {done.stderr if done else ''}")


def _git(root: Path, *words: str) -> "subprocess.CompletedProcess[str] | None":
    try:
        return subprocess.run(  # noqa: S603 - fixed arguments and paths, no shell
            ["git", "-C", str(root if root.is_dir() else root.parent), *words],  # noqa: S607 - git is found on the user's PATH
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
