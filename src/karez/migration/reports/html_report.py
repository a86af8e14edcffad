"""The report of a scan as an HTML page."""

import html
from collections import Counter
from collections.abc import Iterable, Sequence

from karez.ascend import operator_support
from karez.ascend.stacks import where
from karez.migration.estimate import Estimate, estimate
from karez.migration.findings import Finding, Kind
from karez.migration.repo_report import RepoReport
from karez.migration.reports.ascend_fit import fitting_stacks, operators_to_check
from karez.migration.reports.json_report import unread
from karez.migration.rules.catalogue import CATALOGUE

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
_WORK = (Kind.AUTOMATIC, Kind.ASSISTED, Kind.MANUAL)


def as_html(report: RepoReport) -> str:
    """Return the report as one HTML page: amount of work, days, and open questions."""
    sums = estimate(report)
    sections = [
        _summary(report, sums),
        "<h2>By rule</h2>" + _rules(sums),
        "<h2>What people decide</h2>" + _questions(report.findings),
        "<h2>By file</h2>" + _files(report.findings),
        _operators(report),
        "<h2>What to install</h2>" + _stacks(report),
    ]
    left = unread(report)
    if left:
        sections.append("<h2>Not read</h2>" + _table(("file", "why"), left))
    sections.append(
        f'<p class="note">{len(CATALOGUE)} rules for Python. What stays as it is '
        f"({report.counts[Kind.KEEP]} places) is in the JSON report.</p>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>From CUDA to NPU</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(sections)}</body></html>\n"
    )


def _summary(report: RepoReport, sums: Estimate) -> str:
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
    refusal = f"<p><b>Not for rewriting:</b> {_e(report.refusal)}</p>" if report.refusal else ""
    return (
        f"<h1>From CUDA to NPU: {_e(report.root)}</h1>"
        f"<p>{report.lines:,} lines in {len(report.files)} files; {total} constructs are bound to "
        f"CUDA, of which {100 * sums.score:.0f}% are rewritten automatically.</p>"
        f'<div class="bar">{bar}</div><p class="key">{key}</p>'
        f"<p><b>{sums.days:.1f} days</b> of one person: {_e(sums.arithmetic())}. Hours are "
        f"assumptions for somebody who knows the code, stated by rule below.</p>{refusal}"
    )


def _operators(report: RepoReport) -> str:
    operators = operators_to_check(report)
    if not operators:
        return ""
    rows = [
        (one.api, one.verdict, "yes" if one.kernel else "no", " ".join(one.dtypes))
        for one in operators
    ]
    return (
        "<h2>Operators to look at</h2>"
        + _table(("function", "verdict", "has a kernel", "types"), rows, numbers=9)
        + f"<p>Sources: {_e('; '.join(operator_support.SOURCES.values()))}. Where they differ "
        "the verdict is contradictory; try it on the device.</p>"
    )


def _stacks(report: RepoReport) -> str:
    fitting, note = fitting_stacks(report)
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
    named = dict.fromkeys(where(name) for one in fitting for name in one.sources)
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


def _e(value: object) -> str:
    return html.escape(str(value))
