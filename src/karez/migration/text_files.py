"""Analyzes one file other than Python by the text rules."""

import re
from pathlib import PurePosixPath

from karez.migration.file_kinds import is_kernel, is_native
from karez.migration.findings import Edit, FileReport, Finding, Kind
from karez.migration.rules.environment import TWINS
from karez.migration.text_rules import RULES, TWIN, TextRule

LINES_PER_HOUR = 20.0
"""Lines of a CUDA kernel that a person rewrites in an hour; an assumption."""


def examine_text(path: str, text: str) -> FileReport:
    """Return all findings of a file other than Python."""
    at = PurePosixPath(path)
    report = FileReport(path=path, lines=text.count("\n") + (not text.endswith("\n")))
    if is_kernel(at):
        report.kernel_lines = report.lines
        report.findings = [_kernel(path, report.lines)]
        return report
    findings: list[Finding] = []
    taken: set[int] = set()
    for rule in RULES:
        for match in rule.pattern.finditer(text) if rule.where(at) else ():
            row = text[text.rfind("\n", 0, match.start()) + 1 :].partition("\n")[0]
            is_comment = row.lstrip().startswith(("#", "//")) and not is_native(at)
            if match.start() not in taken and not is_comment:
                taken.add(match.start())
                findings.append(_finding(path, text, rule, match, row))
    report.findings = findings
    if is_native(at) and findings:
        report.kernel_lines = report.lines
    return report


def _finding(path: str, text: str, rule: TextRule, match: re.Match[str], row: str) -> Finding:
    kind, edits = _replacement(text, rule, match, row)
    asks = kind in (Kind.ASSISTED, Kind.MANUAL)
    return Finding(
        rule=rule.id,
        kind=kind,
        path=path,
        line=text.count("\n", 0, match.start()) + 1,
        column=match.start() - text.rfind("\n", 0, match.start()),
        code=" ".join(match.group(0).split())[:100],
        reason=rule.reason,
        question=rule.question if asks else "",
        hours=rule.hours if kind != Kind.KEEP else 0.0,
        edits=edits,
    )


def _replacement(
    text: str, rule: TextRule, match: re.Match[str], row: str
) -> tuple[Kind, tuple[Edit, ...]]:
    """The kind of a finding, and the edit that sets the equivalent variable for NPUs."""
    if "karez: keep" in row:
        return Kind.KEEP, ()
    if rule.pattern is not TWIN:
        return rule.kind, ()
    twin = TWINS[match.group(1)]
    if twin in text[max(0, match.start() - 200) : match.end() + 200]:
        return Kind.KEEP, ()
    edit = Edit(start=match.end(), end=match.end(), text=f" {twin}={match.group(2)}")
    return rule.kind, (edit,)


def _kernel(path: str, lines: int) -> Finding:
    return Finding(
        rule="cuda-kernel",
        kind=Kind.MANUAL,
        path=path,
        line=1,
        column=1,
        code=f"{lines} lines",
        reason="A kernel in CUDA C++, which cannot be converted for NPUs by renaming.",
        question="Is there a version in torch's operators? If not, use Ascend C or Triton.",
        hours=round(lines / LINES_PER_HOUR, 1),
    )
