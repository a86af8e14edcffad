"""Changes of files, and the plan of a rewrite."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field

from karez.migration.findings import Finding, Kind
from karez.migration.repo_report import RepoReport

_NO_NEWLINE = "\n\\ No newline at end of file\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The text of one file before and after a rewrite."""

    path: str
    before: str | None
    """None: the file is new."""
    after: str

    def diff(self) -> str:
        """Return the change as `git diff` shows changes."""
        old = (self.before or "").splitlines(keepends=True)
        rows = difflib.unified_diff(
            old,
            self.after.splitlines(keepends=True),
            f"a/{self.path}" if self.before is not None else "/dev/null",
            f"b/{self.path}",
        )
        return "".join(row if row.endswith("\n") else row + _NO_NEWLINE for row in rows)


@dataclass(slots=True, kw_only=True)
class Plan:
    """The planned rewrite of a repository; nothing is written yet."""

    report: RepoReport
    changes: list[Change] = field(default_factory=list)
    made: list[Finding] = field(default_factory=list)
    """Findings whose edits are in the changes."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Files that could not be rewritten, and why."""

    @property
    def left(self) -> Iterator[Finding]:
        """Yield the findings that a person has to decide."""
        made = {(done.path, done.line, done.column, done.rule) for done in self.made}
        for finding in self.report.findings:
            is_open = finding.kind in (Kind.ASSISTED, Kind.MANUAL, Kind.AUTOMATIC)
            place = (finding.path, finding.line, finding.column, finding.rule)
            if is_open and place not in made:
                yield finding
