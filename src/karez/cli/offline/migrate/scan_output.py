"""Output of `karez migrate scan` and `rewrite`: tables for people, JSON for machines."""

from pathlib import Path
from typing import Any

from karez.cli.output import table
from karez.cli.terminal import say

TOP = 20
"""Number of rules and questions shown in the terminal; the reports have all."""


def show_scan(found: dict[str, Any]) -> None:
    """Print a summary of a scan."""
    counts = found["counts"]
    rows = [
        ("lines", f"{found['lines']:,} in {found['files']} files"),
        ("automatic", counts["automatic"]),
        ("assisted", counts["assisted"]),
        ("manual", counts["manual"]),
        ("kept as it is", counts["keep"]),
        ("rewritten", f"{100 * found['score']:.0f}% of what is bound to CUDA"),
        ("days", f"{found['days']:.1f} = {found['arithmetic']}"),
    ]
    table(("", ""), rows, empty="")
    _show_environment(found["environment"])
    if found["refusal"]:
        say(f"not for rewriting: {found['refusal']}")
    table(
        ("rule", "class", "places", "hours"),
        [(r["rule"], r["kind"], r["count"], f"{r['hours']:.1f}") for r in found["rules"][:TOP]],
        empty="nothing is bound to CUDA",
    )
    for file in found["unread"]:
        say(f"not read: {file['path']}: {file['why']}")


def _show_environment(environment: dict[str, Any]) -> None:
    for stack in environment["stacks"][:1]:
        say(
            f"{environment['note']} Newest compatible set: torch {stack['torch']}, "
            f"torch_npu {stack['torch_npu']}, CANN {stack['cann']}, driver "
            f"{' or '.join(stack['drivers']) or 'not published'} (karez migrate versions)"
        )


def show_plan(planned: Any, root: Path, *, written: bool) -> None:
    """Print what was or would be rewritten, and what needs manual work."""
    done = "rewritten" if written else "would be rewritten"
    say(f"{len(planned.changes)} files {done}, {len(planned.made)} constructs", err=True)
    for path, why in planned.failed:
        say(f"left alone: {path}: {why}", err=True)
    left = list(planned.left)
    for item in left[:TOP]:
        text = f"{item.path}:{item.line}: {item.rule}: {item.question or item.reason}"
        say(text, err=True)
    if len(left) > TOP:
        say(f"and {len(left) - TOP} more: karez migrate scan {root}", err=True)


def plan_json(planned: Any, left: list[Any], *, written: bool) -> dict[str, Any]:
    """Summarize a rewrite as JSON."""
    return {
        "written": written,
        "files": [change.path for change in planned.changes],
        "rewritten": len(planned.made),
        "failed": [{"path": path, "why": why} for path, why in planned.failed],
        "left": [
            {
                "path": item.path,
                "line": item.line,
                "rule": item.rule,
                "kind": item.kind.value,
                "code": item.code,
                "question": item.question,
            }
            for item in left
        ],
    }
