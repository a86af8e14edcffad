"""A repository rewritten: planned whole, checked, and only then written, each file at once.

What is planned has been compiled and examined again: nothing that names CUDA is left in it but what
the report lists, and a second run would change nothing.
"""

import ast
import contextlib
import difflib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from karez.core.errors import BadRequest
from karez.migration import shim
from karez.migration.analyze import GENERATED, ScanOptions, apply, examine
from karez.migration.findings import Edit, FileReport, Finding, Kind, Target
from karez.migration.import_layout import Home, Layout, own_modules, place_of_import
from karez.migration.notebooks import examine_notebook, rewrite_notebook
from karez.migration.rules.site import SHIM
from karez.migration.scan import RepoReport, read, scan
from karez.migration.text_files import examine_text

_BOM = "\ufeff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One file before and after; a new file was empty before."""

    path: str
    before: str | None
    after: str

    def diff(self) -> str:
        """As `git diff` would show it."""
        old = (self.before or "").splitlines(keepends=True)
        rows = difflib.unified_diff(
            old,
            self.after.splitlines(keepends=True),
            f"a/{self.path}" if self.before is not None else "/dev/null",
            f"b/{self.path}",
        )
        return "".join(row if row.endswith("\n") else row + "\n" for row in rows)


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a rewrite would do."""

    report: RepoReport
    changes: list[Change] = field(default_factory=list)
    made: list[Finding] = field(default_factory=list)
    """Findings whose edits are in the changes."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Files whose edits were given up, and why."""

    @property
    def left(self) -> Iterator[Finding]:
        """Findings that stay for a person."""
        made = {(one.path, one.line, one.column, one.rule) for one in self.made}
        for one in self.report.findings:
            is_open = one.kind in (Kind.ASSISTED, Kind.MANUAL, Kind.AUTOMATIC)
            if is_open and (one.path, one.line, one.column, one.rule) not in made:
                yield one


def plan(root: Path, *, target: Target, assisted: bool = False, force: bool = False) -> Plan:
    """Work out all changes of a folder; nothing is written.

    Raises:
        BadRequest: The folder is not there, or should not be rewritten, and `force` was not said.
    """
    report = scan(root, ScanOptions(target=target))
    found = Plan(report=report)
    if report.refusal and not force:
        raise BadRequest(
            problem=f"{root} is not rewritten: {report.refusal}",
            fix="Read the scan's report first; --force rewrites what can be rewritten.",
        )
    base = root if root.is_dir() else root.parent
    layout = _layout(base, report)
    used: dict[str, set[str]] = {}
    for file in report.files:
        if not any(one.edits for one in file.findings):
            continue
        text = read(base / file.path)
        try:
            change, made, home = _rewrite(file.path, text, layout, report, target, assisted)
        except (ValueError, SyntaxError) as error:
            found.failed.append((file.path, str(error)))
            continue
        found.made += made
        if change is None:
            continue
        found.changes.append(change)
        names = {name for one in made for name in one.needs} - {"torch_npu"}
        if home is not None and names:
            used.setdefault(home.file, set()).update(names)
    union = set().union(*used.values())  # whichever is imported first serves all
    found.changes += _shims(base, dict.fromkeys(used, union))
    return found


def write(root: Path, changes: Sequence[Change]) -> None:
    """Write all files, or, if one cannot be written, none.

    Raises:
        BadRequest: The folder cannot be written to.
    """
    base = root if root.is_dir() else root.parent
    ready: list[tuple[str, Path]] = []
    done: list[tuple[Path, str | None]] = []
    try:
        for change in changes:
            ready.append((_beside(base / change.path, change.after), base / change.path))
        for change, (fresh, path) in zip(changes, ready, strict=True):
            done.append((path, change.before))
            os.replace(fresh, path)
    except OSError as error:
        for path, before in done:  # back to what it was
            with contextlib.suppress(OSError):
                path.unlink() if before is None else os.replace(_beside(path, before), path)
        raise BadRequest(
            problem=f"{error.filename or base} cannot be written: {error.strerror}",
            fix="Nothing was changed. Rewrite a copy that you own.",
        ) from error
    finally:
        for fresh, _ in ready:
            with contextlib.suppress(OSError):
                os.unlink(fresh)


def check_clean(root: Path) -> None:
    """That a folder is under git and has nothing uncommitted. Raises BadRequest."""
    done = _git(root, "status", "--porcelain", "--", ".")
    if done is None or done.returncode:
        raise BadRequest(
            problem=f"{root} is not under git, so a rewrite could not be taken back",
            fix="Commit it first, or say --dirty to rewrite it all the same.",
        )
    if done.stdout.strip():
        count = len(done.stdout.strip().splitlines())
        raise BadRequest(
            problem=f"{root} has {count} uncommitted changes",
            fix="Commit or stash them, or say --dirty.",
        )


def switch_to(root: Path, branch: str) -> None:
    """Make a branch and go to it. Raises BadRequest."""
    done = _git(root, "switch", "-c", branch)
    if done is None or done.returncode:
        said = done.stderr.strip() if done else "git is not installed"
        raise BadRequest(problem=f"the branch {branch} could not be made: {said}")


def commit(root: Path, changes: Sequence[Change], message: str) -> None:
    """Commit what was written. Raises BadRequest."""
    for words in (("add", "--", *(c.path for c in changes)), ("commit", "-q", "-m", message)):
        done = _git(root, *words)
        if done is None or done.returncode:
            raise BadRequest(problem=f"git {words[0]} failed: {done.stderr if done else ''}")


def _rewrite(
    path: str, text: str, layout: Layout, report: RepoReport, target: Target, assisted: bool
) -> tuple[Change | None, list[Finding], Home | None]:
    """One file: the change, the findings it carries out, and where its generated module is."""
    wanted = (Kind.AUTOMATIC, Kind.ASSISTED) if assisted else (Kind.AUTOMATIC,)
    is_notebook = path.endswith(".ipynb")
    if not path.endswith((".py", ".pyi", ".ipynb")):
        file = examine_text(path, text)
        made = [one for one in file.findings if one.kind in wanted and one.edits]
        after = apply(text, _edits(made))
        return (Change(path=path, before=text, after=after) if made else None), made, None
    bom = _BOM if text.startswith(_BOM) else ""
    body = text.removeprefix(_BOM)
    home = layout.home(path, body)
    options = ScanOptions(target=target, module=home.module, own=own_modules(report.paths))
    file = (examine_notebook if is_notebook else examine)(path, body, options)
    made = [one for one in file.findings if one.kind in wanted and one.edits]
    if not made:
        return None, [], None
    if is_notebook:
        lines = _imports(file, made, home, target, body) if made else ""
        after = rewrite_notebook(body, tuple(_edits(made)), lines)
    else:
        after = _with_imports(apply(body, _edits(made)), file, made, home, target)
        compile(after, path, "exec", dont_inherit=True)
        _check(path, after, made, options)
    return Change(path=path, before=text, after=bom + after), made, home


def _edits(made: Sequence[Finding]) -> list[Edit]:
    return [edit for one in made for edit in one.edits]


def _imports(
    file: FileReport, made: Sequence[Finding], home: Home, target: Target, before: str
) -> str:
    """The import statements that edits ask for and the file lacks."""
    if target == Target.NPU:
        lacks = not re.search(r"^\s*import torch_npu\b", before, re.MULTILINE)
        return "import torch_npu  # noqa: F401\n" if lacks and any(m.needs for m in made) else ""
    uses = any(f"{file.shim}." in edit.text for edit in _edits(made))
    name = "" if file.shim == SHIM else f" as {file.shim}"
    statement = f"{home.statement}{name}"
    is_there = re.search(rf"^\s*{re.escape(statement)}\s*$", before, re.MULTILINE)
    return f"{statement}\n" if uses and not is_there else ""


def _with_imports(
    after: str, file: FileReport, made: Sequence[Finding], home: Home, target: Target
) -> str:
    lines = _imports(file, made, home, target, after)
    if not lines:
        return after
    at = place_of_import(after, after.find(f"{file.shim}.") if target != Target.NPU else None)
    end = "\r\n" if "\r\n" in after else "\n"
    gap = "" if not after[:at] or after[:at].endswith("\n") else end
    return after[:at] + gap + lines.replace("\n", end) + after[at:]


def _check(path: str, after: str, made: Sequence[Finding], options: ScanOptions) -> None:
    """That nothing is left to rewrite. Raises ValueError."""
    again = examine(path, after, options)
    rest = [one for one in again.findings if one.kind == Kind.AUTOMATIC and one.edits]
    if again.error:
        raise ValueError(f"the result cannot be read: {again.error}")
    if rest and not again.is_portable:
        raise ValueError(f"line {rest[0].line}: {rest[0].rule} would be rewritten twice")
    del made


def _layout(base: Path, report: RepoReport) -> Layout:
    layout = Layout(report.paths)
    for path in report.paths:
        with contextlib.suppress(OSError, ValueError):
            layout.note(path, read(base / path))
    return layout


def _shims(base: Path, used: dict[str, set[str]]) -> list[Change]:
    """The generated modules, with what earlier ones offered."""
    changes: list[Change] = []
    for path, names in sorted(used.items()):
        before = None
        if (base / path).exists():
            before = read(base / path)
            if not before.startswith(GENERATED):
                raise BadRequest(
                    problem=f"{path} is there already, and was not generated",
                    fix="Rename it; the generated module needs this name.",
                )
            if names <= shim.used_of(before) | {
                "type",
                "accelerator",
                "backend",
                "accelerator_backend",
            }:
                continue  # edited by its owner, perhaps; it offers what is needed
        after = shim.write_shim(names | (shim.used_of(before) if before else frozenset()))
        ast.parse(after)
        changes.append(Change(path=path, before=before, after=after))
    return changes


def _beside(path: Path, text: str) -> str:
    """A new file next to a path, with its rights. Raises OSError."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    mode = path.stat().st_mode if path.exists() else 0o644
    os.chmod(name, mode & 0o7777)
    return name


def _git(root: Path, *words: str) -> "subprocess.CompletedProcess[str] | None":
    try:
        return subprocess.run(  # noqa: S603 - words of our own
            ["git", "-C", str(root if root.is_dir() else root.parent), *words],  # noqa: S607 - whose
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
