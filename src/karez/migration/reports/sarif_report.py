"""The report of a scan as SARIF 2.1.0, for code review tools."""

from typing import Any

from karez.migration.findings import Finding, Kind
from karez.migration.repo_report import RepoReport

_LEVELS = {Kind.AUTOMATIC: "note", Kind.ASSISTED: "warning", Kind.MANUAL: "error"}


def as_sarif(report: RepoReport) -> dict[str, Any]:
    """Return the findings as a SARIF 2.1.0 log."""
    used = {one.rule: one for one in report.findings if one.kind != Kind.KEEP}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "karez migrate",
                        "rules": [
                            {"id": rule, "shortDescription": {"text": one.reason}}
                            for rule, one in sorted(used.items())
                        ],
                    }
                },
                "results": [_sarif(one) for one in report.findings if one.kind != Kind.KEEP],
            }
        ],
    }


def _sarif(one: Finding) -> dict[str, Any]:
    path = one.path.partition("#")[0]
    text = f"{one.reason} {one.question}".strip()
    return {
        "ruleId": one.rule,
        "level": _LEVELS[one.kind],
        "message": {"text": text},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": path},
                    "region": {"startLine": one.line, "startColumn": one.column},
                }
            }
        ],
    }
