"""Scans a repository: reads all files and examines the files on all cores."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

from karez.ascend.torch_requirement import torch_wanted
from karez.core.errors import BadRequest
from karez.migration import file_kinds, notebooks, text_files
from karez.migration.analyze import ScanOptions, examine
from karez.migration.findings import FileReport
from karez.migration.import_layout import own_modules
from karez.migration.repo_facts import facts_of
from karez.migration.repo_report import RepoReport
from karez.migration.rules.site import SHIM

SKIPPED = frozenset(
    (
        ".git",
        ".hg",
        ".svn",
        "node_modules",
        "__pycache__",
        ".venv",
        "venv",
        ".tox",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        "site-packages",
        ".ipynb_checkpoints",
        ".eggs",
    )
)
MAX_BYTES = 4 << 20
"""Largest file that is read; larger files are data or generated."""
_TEXTS = (
    file_kinds.SHELL
    | file_kinds.SETTINGS
    | file_kinds.KERNELS
    | file_kinds.NATIVE
    | {".txt", ".in", ".def"}
)
_REQUIREMENTS = frozenset(("pyproject.toml", "setup.py", "setup.cfg"))
PARALLEL_FROM = 60
"""Number of files from which worker processes are started."""
CHUNK = 16


def scan(
    root: Path,
    options: ScanOptions = ScanOptions(),
    *,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> RepoReport:
    """Examine every file of a folder.

    Args:
        root: A folder, or one file.
        options: Options for the edits.
        workers: Number of processes; 0: one for each core, if there are many files.
        progress: Called with the number of examined files.

    Raises:
        BadRequest: There is no such folder.
    """
    if not root.exists():
        raise BadRequest(problem=f"there is no {root}", fix="Name a folder or a file.")
    report = RepoReport(root=str(root))
    paths = sorted(_files(root))
    base = root if root.is_dir() else root.parent
    names = [path.relative_to(base).as_posix() for path in paths]
    report.paths = tuple(name for name in names if name.endswith((".py", ".pyi")))
    wanted = [found for found in (_torch(base, name) for name in names) if found]
    report.torch = wanted[0] if wanted else ""
    report.facts = facts_of(wanted, _texts(base, report.paths))
    options = replace(options, own=own_modules(report.paths), facts=report.facts)
    jobs = [(str(base), name, options) for name in names]
    for number, one in enumerate(_run(jobs, workers), 1):
        if isinstance(one, FileReport):
            report.files.append(one)
            report.code_lines += one.lines if _is_code(one.path) else 0
        else:
            report.skipped.append(one)
        if progress is not None:
            progress(number)
    return report


def read(path: Path) -> str:
    """Return the text of a file with its line endings. Raises ValueError if it is not text."""
    body = path.read_bytes()
    if len(body) > MAX_BYTES:
        raise ValueError(f"it has {len(body) >> 20} MiB; files over 4 MiB are data")
    if b"\0" in body[:8192]:
        raise ValueError("it is binary")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason} at byte {error.start}") from error


def look(base: str, name: str, options: ScanOptions) -> FileReport | tuple[str, str]:
    """Return the report of one file, or the path and the reason why it was not read."""
    try:
        text = read(Path(base, name))
    except (OSError, ValueError) as error:
        return name, str(error)
    if name.endswith((".py", ".pyi")):
        return examine(name, text.removeprefix("\ufeff"), options)
    if name.endswith(".ipynb"):
        return notebooks.examine_notebook(name, text, options)
    return text_files.examine_text(name, text)


def _run(
    jobs: Sequence[tuple[str, str, ScanOptions]], workers: int
) -> Iterator[FileReport | tuple[str, str]]:
    count = workers or min(8, os.cpu_count() or 1)
    if count == 1 or len(jobs) < PARALLEL_FROM:
        for job in jobs:
            yield look(*job)
        return
    with ProcessPoolExecutor(count) as pool:
        yield from pool.map(look, *zip(*jobs, strict=True), chunksize=CHUNK)


def _files(root: Path) -> Iterator[Path]:
    """Yield every file to read once; links to folders are not followed."""
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in SKIPPED)
        for name in names:
            path = Path(folder, name)
            if path.is_symlink() or not path.is_file() or name == f"{SHIM}.py":
                continue
            if _is_wanted(PurePosixPath(name)):
                yield path


def _texts(base: Path, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        with contextlib.suppress(OSError, ValueError):  # the report of the file says why
            yield name, read(base / name)


def _torch(base: Path, name: str) -> str:
    path = PurePosixPath(name)
    named = path.name in _REQUIREMENTS or path.name.startswith("environment")
    if len(path.parts) > 2 or not (named or file_kinds.is_requirements(path)):
        return ""
    try:
        return torch_wanted(read(base / name))
    except (OSError, ValueError):
        return ""


def _is_wanted(path: PurePosixPath) -> bool:
    return path.suffix in {".py", ".pyi", ".ipynb"} | _TEXTS or (
        file_kinds.is_shell(path) or file_kinds.is_docker(path) or file_kinds.is_requirements(path)
    )


def _is_code(path: str) -> bool:
    return path.endswith((".py", *file_kinds.KERNELS, *file_kinds.NATIVE))
