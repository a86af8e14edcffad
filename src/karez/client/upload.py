"""Describe local files as the files of an artifact: what is sent, and what is left out."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from karez.core.artifacts import ArtifactKind, FileEntry, FileMode, is_inside
from karez.core.chat_rows import bounded_lines, read_chat_rows
from karez.core.errors import BadRequest

IGNORE_FILES = (".gitignore", ".karezignore")
"""Files with patterns in Git's syntax, for the folder that they are in; the later one wins."""
ALWAYS_LEFT_OUT = (
    *(".git/", ".hg/", ".svn/", "__pycache__/", ".venv/", "node_modules/", ".DS_Store"),
    *(".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".ipynb_checkpoints/"),
)
SECRETS = (".env", ".env.*", "!.env.example", "!.env.sample", "!.env.template")
"""Left out of code: such files hold passwords. A `.karezignore` with `!.env` sends them."""
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFile:
    """A file to be uploaded: the bytes at a path, or those given."""

    entry: FileEntry
    content: Path | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPlan:
    """What an upload sends, and what it leaves out."""

    root: Path
    files: tuple[LocalFile, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Pattern, or kind of file, -> how many files and folders it left out."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.entry.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadProgress:
    """How far an upload is."""

    files: int
    """Files that have to be sent; the store has the others."""
    bytes: int
    sent_bytes: int


def plan_upload(path: Path, kind: ArtifactKind) -> UploadPlan:
    """Plan the upload of a file or a folder.

    Code keeps its modes, its links, and its empty folders. A model or a data set is read through
    its links: folders of caches consist of them.

    Raises:
        BadRequest: There are no files, a link of code leads out of it, a file cannot be read, or a
            name cannot be kept.
    """
    try:
        found = _Plan(root=path, is_code=kind == ArtifactKind.CODE)
        if path.is_file():
            found.add_file(path, path.name)
        elif path.is_dir():
            found.walk(path, ())
    except OSError as error:
        problem = f"{error.filename} cannot be read: {error.strerror}"
        raise BadRequest(
            problem=problem, fix="Make it readable, or list it in .karezignore."
        ) from error
    if found.outside:
        listed = ", ".join(found.outside[:_SHOWN]) + (", ..." if found.outside[_SHOWN:] else "")
        raise BadRequest(
            problem=f"links lead out of {path}: {listed}",
            fix="Put there what they point to, or list them in .karezignore.",
        )
    if not found.files:
        gone = f"; {show_left_out(found.left_out)}" if found.left_out else ""
        raise BadRequest(problem=f"there are no files at {path}{gone}")
    return UploadPlan(root=path, files=tuple(found.files), left_out=dict(found.left_out))


CHAT_FILES = ("train.jsonl", "validation.jsonl", "held_out.jsonl")
"""Files of a data set of chat rows."""


def check_chat_data(plan: UploadPlan) -> dict[str, int]:
    """Read all rows of a data set that is to be uploaded; returns file -> number of rows.

    Raises:
        BadRow: A row cannot be used.
        BadRequest: There is none of the files that recipes read.
    """
    rows: dict[str, int] = {}
    for file in plan.files:
        name = file.entry.path
        if name in CHAT_FILES and isinstance(file.content, Path):
            with file.content.open("rb") as lines:
                rows[name] = sum(1 for _ in read_chat_rows(name, bounded_lines(name, lines)))
    if not rows:
        raise BadRequest(
            problem=f"{plan.root} has neither {' nor '.join(CHAT_FILES)}",
            fix="Name the folder with them; each line is a JSON object with messages.",
        )
    return rows


def show_left_out(left_out: Mapping[str, int]) -> str:
    """What an upload left out, for people; empty if nothing."""
    parts = [f"{what} ({count})" if count > 1 else what for what, count in left_out.items()]
    return f"left out: {', '.join(parts)}" if parts else ""


_Rules = Sequence[tuple[Path, str, GitIgnoreSpec]]
"""(folder that patterns are for, name of their file, patterns); the last that match win."""


@dataclass(slots=True, kw_only=True)
class _Plan:
    root: Path
    is_code: bool
    files: list[LocalFile] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    outside: list[str] = field(default_factory=list)
    """Links that lead out of the root."""
    _entered: set[str] = field(default_factory=set)
    """Real paths of the folders on the way down."""

    def walk(self, folder: Path, rules: _Rules) -> None:
        """Add what is below a folder."""
        real = os.path.realpath(folder)
        if real in self._entered:  # a link to a folder above it
            return
        self._entered.add(real)
        rules = (*rules, *self._rules_of(folder))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        if not entries and folder != self.root:
            self._add_bytes(b"", folder, FileMode.FOLDER)
        for entry in entries:
            self._add(entry, folder / entry.name, rules)
        self._entered.discard(real)

    def add_file(self, path: Path, name: str) -> None:
        """Add a file under a name."""
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            self.left_out["pipes, sockets and devices"] += 1
            return
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        is_run = self.is_code and bool(found.st_mode & stat.S_IXUSR)
        mode = FileMode.EXECUTABLE if is_run else FileMode.FILE
        self.files.append(LocalFile(entry=_entry(name, digest, found.st_size, mode), content=path))

    def _add(self, entry: "os.DirEntry[str]", path: Path, rules: _Rules) -> None:
        is_folder = entry.is_dir()
        reason = _left_out_by(path, rules, is_folder=is_folder and not entry.is_symlink())
        if reason:
            self.left_out[reason] += 1
        elif self.is_code and entry.is_symlink():
            self._add_link(path)
        elif is_folder:
            self.walk(path, rules)
        elif entry.is_symlink() and not path.exists():
            self.left_out["links to nothing"] += 1
        else:
            self.add_file(path, self._name(path))

    def _add_link(self, path: Path) -> None:
        target, name = os.readlink(path), self._name(path)
        if os.path.isabs(target):
            target = os.path.relpath(target, os.path.realpath(path.parent))
        if is_inside(name, target.replace(os.sep, "/")):
            self._add_bytes(os.fsencode(target.replace(os.sep, "/")), path, FileMode.LINK)
        else:
            self.outside.append(f"{name} -> {os.readlink(path)}")

    def _add_bytes(self, content: bytes, path: Path, mode: FileMode) -> None:
        digest = hashlib.sha256(content).hexdigest()
        entry = _entry(self._name(path), digest, len(content), mode)
        self.files.append(LocalFile(entry=entry, content=content))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _rules_of(self, folder: Path) -> Iterator[tuple[Path, str, GitIgnoreSpec]]:
        if folder == self.root:
            builtin = (*ALWAYS_LEFT_OUT, *(SECRETS if self.is_code else ()))
            yield folder, "", GitIgnoreSpec.from_lines(builtin)
        for name in IGNORE_FILES if self.is_code else IGNORE_FILES[-1:]:
            file = folder / name
            if file.is_file():
                lines = file.read_text("utf-8", errors="replace").splitlines()
                yield folder, name, GitIgnoreSpec.from_lines(lines)


def _left_out_by(path: Path, rules: _Rules, *, is_folder: bool) -> str:
    """What leaves a path out, for people; empty if nothing does."""
    for base, source, patterns in reversed(rules):
        name = path.relative_to(base).as_posix() + ("/" if is_folder else "")
        include = patterns.check_file(name).include
        if include is not None:
            return (f"by {source}" if source else path.name) if include else ""
    return ""


def _entry(name: str, digest: str, size: int, mode: FileMode) -> FileEntry:
    try:
        name.encode()
        return FileEntry(path=name, sha256=digest, size_bytes=size, mode=mode)
    except ValueError as error:
        problem = f"the name {name!r} cannot be kept: {error}"
        raise BadRequest(problem=problem, fix="Rename it, or list it in .karezignore.") from error
