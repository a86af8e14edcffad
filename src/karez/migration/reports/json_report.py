"""The report of a scan as JSON, with keys that stay the same between releases."""

from dataclasses import asdict
from typing import Any

from karez.ascend import operator_support
from karez.ascend.stacks import where
from karez.migration.estimate import estimate
from karez.migration.findings import Finding, Kind
from karez.migration.repo_report import RepoReport
from karez.migration.reports.ascend_fit import fitting_stacks, operators_to_check


def as_json(report: RepoReport) -> dict[str, Any]:
    """Return the whole report as JSON values."""
    sums = estimate(report)
    return {
        "root": report.root,
        "files": len(report.files),
        "lines": report.lines,
        "counts": {kind.value: report.counts[kind] for kind in Kind},
        "score": round(sums.score, 4),
        "days": round(sums.days, 2),
        "arithmetic": sums.arithmetic(),
        "refusal": report.refusal,
        "kernel_lines": report.kernel_lines,
        "portable_files": list(report.portable),
        "rules": [asdict(row) for row in sums.rows],
        "findings": [_finding(one) for one in report.findings],
        "operators": [_support(one) for one in operators_to_check(report)],
        "operator_sources": operator_support.SOURCES,
        "environment": _environment(report),
        "unread": [{"path": path, "why": why} for path, why in unread(report)],
    }


def unread(report: RepoReport) -> list[tuple[str, str]]:
    """Return the files that could not be read, and why."""
    return [*report.skipped, *((file.path, file.error) for file in report.files if file.error)]


def _environment(report: RepoReport) -> dict[str, Any]:
    fitting, note = fitting_stacks(report)
    return {
        "torch": report.torch,
        "note": note,
        "stacks": [asdict(one) for one in fitting],
        "sources": {name: where(name) for one in fitting for name in one.sources},
    }


def _finding(one: Finding) -> dict[str, Any]:
    return {
        "rule": one.rule,
        "kind": one.kind.value,
        "path": one.path,
        "line": one.line,
        "column": one.column,
        "code": one.code,
        "reason": one.reason,
        "question": one.question,
        "forms": {target.value: form for target, form in one.forms},
        "hours": one.hours,
        "api": one.api,
        "rewritten": bool(one.edits) and one.kind == Kind.AUTOMATIC,
    }


def _support(one: operator_support.Support) -> dict[str, Any]:
    return {
        "api": one.api,
        "verdict": one.verdict,
        "docs": dict(one.docs),
        "kernel": one.kernel,
        "dtypes": list(one.dtypes),
    }
