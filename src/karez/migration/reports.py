"""What a scan found, for people and for machines: JSON, SARIF and an HTML page."""

import html
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from karez.ascend import operator_support, version_matrix
from karez.migration.estimate import Estimate, estimate
from karez.migration.findings import Finding, Kind
from karez.migration.rules.catalogue import CATALOGUE
from karez.migration.scan import RepoReport

_LEVELS = {Kind.AUTOMATIC: "note", Kind.ASSISTED: "warning", Kind.MANUAL: "error"}
STACKS = 3
_WORK = (Kind.AUTOMATIC, Kind.ASSISTED, Kind.MANUAL)
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
body{color:#1b1f24}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
td,th{padding:.3rem .6rem;border-bottom:1px solid #e3e6ea;text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.86em}
.bar{display:flex;height:1.4rem;border-radius:4px;overflow:hidden;margin:.6rem 0}
.automatic{background:#2e7d5b}.assisted{background:#d39a2c}.manual{background:#b3423a}
.key span{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .3em 0 1em}
.note{color:#5b6470}details{margin:.4rem 0}summary{cursor:pointer}
"""


def as_json(report: RepoReport) -> dict[str, Any]:
    """Everything, with names that stay."""
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
        "operators": [_support(one) for one in _operators(report)],
        "operator_sources": operator_support.SOURCES,
        "environment": _environment(report),
        "unread": [{"path": path, "why": why} for path, why in unread(report)],
    }


def unread(report: RepoReport) -> list[tuple[str, str]]:
    """Files that were left alone because they could not be read, and why."""
    return [*report.skipped, *((file.path, file.error) for file in report.files if file.error)]


def as_sarif(report: RepoReport) -> dict[str, Any]:
    """SARIF 2.1.0, as code review tools read it."""
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


def as_html(report: RepoReport) -> str:
    """A page that a team lead can read: how much, how long, what is left to people."""
    sums = estimate(report)
    counts = report.counts
    total = sum(counts[kind] for kind in _WORK)
    bar = "".join(
        f'<div class="{kind.value}" style="flex:{counts[kind]}" '
        f'title="{kind.value}: {counts[kind]}"></div>'
        for kind in _WORK
        if counts[kind]
    )
    key = "".join(
        f'<span class="{kind.value}"></span>{kind.value} {counts[kind]}' for kind in _WORK
    )
    parts = [
        f"<h1>From CUDA to NPU: {_e(report.root)}</h1>",
        f"<p>{report.lines:,} lines in {len(report.files)} files; {total} constructs are bound to "
        f"CUDA, of which {100 * sums.score:.0f}% are rewritten automatically.</p>",
        f'<div class="bar">{bar}</div><p class="key">{key}</p>',
        f"<p><b>{sums.days:.1f} days</b> of one person: {_e(sums.arithmetic())}. Hours are "
        "assumptions for somebody who knows the code, stated by rule below.</p>",
    ]
    if report.refusal:
        parts.append(f"<p><b>Not for rewriting:</b> {_e(report.refusal)}</p>")
    parts.append("<h2>By rule</h2>" + _rules(sums))
    parts.append("<h2>What people decide</h2>" + _questions(report.findings))
    parts.append("<h2>By file</h2>" + _files(report.findings))
    operators = _operators(report)
    if operators:
        rows = [
            (one.api, one.verdict, "yes" if one.kernel else "no", " ".join(one.dtypes))
            for one in operators
        ]
        parts.append(
            "<h2>Operators to look at</h2>"
            + _table(("function", "verdict", "has a kernel", "types"), rows, numbers=9)
            + f"<p>Sources: {_e('; '.join(operator_support.SOURCES.values()))}. Where they differ "
            "the verdict is contradictory; try it on the device.</p>"
        )
    parts.append("<h2>What to install</h2>" + _stacks(report))
    left = unread(report)
    if left:
        parts.append("<h2>Not read</h2>" + _table(("file", "why"), left))
    parts.append(
        f'<p class="note">{len(CATALOGUE)} rules for Python. What stays as it is '
        f"({counts[Kind.KEEP]} places) is in the JSON report.</p>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>From CUDA to NPU</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _environment(report: RepoReport) -> dict[str, Any]:
    fitting, note = _fitting(report)
    return {
        "torch": report.torch,
        "note": note,
        "stacks": [asdict(one) for one in fitting],
        "sources": {name: version_matrix.where(name) for one in fitting for name in one.sources},
    }


def _fitting(report: RepoReport) -> tuple[list[version_matrix.Stack], str]:
    """The newest stacks for what the repository asks of torch, one for each CANN."""
    found = version_matrix.resolve({"torch": report.torch} if report.torch else {})
    asked = f"torch{report.torch}" if report.torch else "any torch"
    note = f"It asks for {asked}."
    if not found:
        found = version_matrix.resolve({})
        note = f"It asks for {asked}, for which no torch_npu is published: it has to be lifted."
    first = {one.cann: one for one in reversed(found)}
    return list(reversed(first.values()))[:STACKS], note


def _stacks(report: RepoReport) -> str:
    fitting, note = _fitting(report)
    rows = [
        (
            one.torch,
            one.torch_npu,
            one.cann,
            " or ".join(one.drivers) or "not published",
            ", ".join(one.pythons),
        )
        for one in fitting
    ]
    named = dict.fromkeys(version_matrix.where(name) for one in fitting for name in one.sources)
    return (
        f"<p>{_e(note)} Published as going together, the newest first:</p>"
        + _table(("torch", "torch_npu", "CANN", "driver", "Python"), rows, numbers=9)
        + f"<p>Sources: {_e('; '.join(named))}.</p>"
    )


def _rules(sums: Estimate) -> str:
    rows = [
        (row.rule, row.kind.value, row.count, row.files, f"{row.hours_each:g}", f"{row.hours:.1f}")
        for row in sums.rows
    ]
    return _table(("rule", "class", "places", "files", "hours each", "hours"), rows, numbers=2)


def _questions(findings: Iterable[Finding]) -> str:
    grouped: dict[tuple[str, str, str, str], list[Finding]] = {}
    for one in findings:
        if one.kind in (Kind.ASSISTED, Kind.MANUAL):
            grouped.setdefault((one.kind.value, one.rule, one.reason, one.question), []).append(one)
    parts = []
    for (kind, rule, reason, question), ones in sorted(grouped.items(), reverse=True):
        places = "".join(
            f"<li><code>{_e(one.path)}:{one.line}</code> <code>{_e(one.code)}</code></li>"
            for one in ones
        )
        parts.append(
            f"<details><summary><b>{_e(rule)}</b> ({kind}, {len(ones)}): {_e(reason)} "
            f"<i>{_e(question)}</i></summary><ul>{places}</ul></details>"
        )
    return "".join(parts) or "<p>Nothing.</p>"


def _files(findings: Iterable[Finding]) -> str:
    by_file: dict[str, Counter[Kind]] = {}
    for one in findings:
        by_file.setdefault(one.path, Counter())[one.kind] += 1
    rows = [
        (path, *(count[kind] for kind in _WORK))
        for path, count in sorted(by_file.items(), key=lambda item: -sum(item[1].values()))
        if any(count[kind] for kind in _WORK)
    ]
    return _table(("file", *(kind.value for kind in _WORK)), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: int = 1) -> str:
    top = "".join(f"<th{_right(at >= numbers)}>{_e(head)}</th>" for at, head in enumerate(heads))
    body = "".join(
        "<tr>"
        + "".join(f"<td{_right(at >= numbers)}>{_e(cell)}</td>" for at, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _right(is_number: bool) -> str:
    return ' class="n"' if is_number else ""


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


def _operators(report: RepoReport) -> list[operator_support.Support]:
    return operator_support.worth_a_look(api for file in report.files for api in file.apis)


def _support(one: operator_support.Support) -> dict[str, Any]:
    return {
        "api": one.api,
        "verdict": one.verdict,
        "docs": dict(one.docs),
        "kernel": one.kernel,
        "dtypes": list(one.dtypes),
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


def _e(value: object) -> str:
    return html.escape(str(value))
