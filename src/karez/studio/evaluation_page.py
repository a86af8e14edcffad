"""The report of an evaluation as one HTML page. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from karez.studio.html_page import Line, chart, escaped, page, rows_table

ROLES = {"base": "base", "model": "model"}
LEAST_IN_BIN = 10
MOST_WRONG, MOST_LABELS = 500, 200
SHOWN = 300
"""Characters of an answer."""


def evaluation_page(report: Mapping[str, Any]) -> str:
    """Write the page: figures with their intervals, curves, labels, and what was wrong."""
    roles = [role for role in ROLES if role in report]
    parts = [
        "<h1>Evaluation</h1>",
        f"<p>{report['rows']:,} held-out rows, computed on {escaped(report['device'])}. What "
        f"counts as right: {escaped(report['measure'])}.</p>",
        _figures(report, roles),
        *_words(report, roles),
        _charts(report, roles),
        _labels(report.get("model", {})),
        _wrong(report.get("model", {})),
    ]
    return page("Evaluation", parts, has_filter=True)


def _figures(report: Mapping[str, Any], roles: Sequence[str]) -> str:
    rows = [_figure(ROLES[role], report[role]) for role in roles]
    if "mistyped" in report:
        share = report["mistyped"]["share"]
        rows.append(_figure(f"model, {share:.0%} of words mistyped", report["mistyped"]))
    heads = ("", "right", "95% interval", "loss", "F1")
    return rows_table(heads, rows, numbers=4)


def _figure(name: str, told: Mapping[str, Any]) -> Sequence[object]:
    low, high = told["accuracy_95"]
    interval = f"{low:.1%} to {high:.1%}"
    return (name, f"{told['accuracy']:.1%}", interval, f"{told['loss']:.3f}", f"{told['f1']:.1%}")


def _words(report: Mapping[str, Any], roles: Sequence[str]) -> list[str]:
    """What the report says in sentences."""
    told = []
    if "measured_as" in report.get("base", {}):
        told.append(f"The base is measured by {report['base']['measured_as']}.")
    told += [report[name]["words"] for name in ("paired",) if name in report]
    if "paired" in report.get("mistyped", {}):
        told.append(report["mistyped"]["paired"]["words"])
    for role in roles:
        if "selective" in report[role]:
            chosen = report[role]["selective"]
            told.append(
                f"{ROLES[role]}, with a target of {chosen['target']:.0%}: {chosen['words']}"
            )
    return [f"<p>{escaped(text[:1].upper() + text[1:])}</p>" for text in told]


def _charts(report: Mapping[str, Any], roles: Sequence[str]) -> str:
    curves = [
        Line(name=ROLES[role], points=report[role]["selective"]["curve"])
        for role in roles
        if report[role].get("selective", {}).get("curve")
    ]
    bins = [
        Line(name=ROLES[role], points=_points(told["bins"]))
        for role in roles
        if (told := report[role].get("calibration"))
    ]
    found = []
    if curves:
        lowest = min(share for line in curves for _, share in line.points)
        low = min(0.9, int(10 * lowest) / 10)
        title = "Right among the rows that it is surest of"
        found.append(
            chart(title, "share of the rows that are answered", curves, low=low, diagonal=False)
        )
    if bins:
        title = "Right as often as it says"
        found.append(chart(title, "how sure it is", bins, low=0.0, diagonal=True))
    return f'<div class="charts">{"".join(found)}</div>' if found else ""


def _points(bins: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """(how sure, how often right) of the bins with answers enough to say so."""
    return [(sure, right) for count, sure, right in bins if count >= LEAST_IN_BIN]


def _labels(model: Mapping[str, Any]) -> str:
    if not model.get("labels"):
        return ""
    ordered = sorted(model["labels"], key=lambda one: (one["f1"], one["label"]))
    rows = [
        (
            one["label"],
            one["rows"],
            "never named" if one["precision"] is None else f"{one['precision']:.1%}",
            f"{one['recall']:.1%}",
            f"{one['f1']:.1%}",
        )
        for one in ordered[:MOST_LABELS]
    ]
    table = rows_table(("label", "rows", "precision", "recall", "F1"), rows, numbers=4)
    confused = rows_table(("expected", "named", "rows"), model["confused"], numbers=1)
    return (
        f"<h2>Labels, the worst first</h2><details open><summary>{len(model['labels'])} labels"
        f"</summary>{table}</details><h2>Taken for another</h2>{confused}"
    )


def _wrong(model: Mapping[str, Any]) -> str:
    wrong = [one for one in model.get("answers", ()) if one["answered"] != one["expected"]]
    if not wrong:
        return ""
    ordered = sorted(wrong, key=lambda one: -one["confidence"])[:MOST_WRONG]
    body = "".join(_answer(one) for one in ordered)
    more = f", of which the surest {MOST_WRONG} are here" * (len(wrong) > MOST_WRONG)
    return (
        f"<h2>Wrong answers, the surest first</h2><p>{len(wrong):,} were wrong{more}. "
        '<label>Find: <input id="filter" placeholder="part of a label or an answer"></label></p>'
        "<table><thead><tr><th>expected</th><th>answered</th><th>sure</th></tr></thead>"
        f'<tbody class="found">{body}</tbody></table>'
    )


def _answer(one: Mapping[str, Any]) -> str:
    expected, answered = str(one["expected"])[:SHOWN], str(one["answered"])[:SHOWN]
    words = escaped(f"{expected} {answered}".lower())
    return (
        f'<tr data-words="{words}"><td>{escaped(expected)}</td><td>{escaped(answered)}</td>'
        f'<td class="n">{one["confidence"]:.1%}</td></tr>'
    )
