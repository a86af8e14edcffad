"""What `karez migrate scan` and `rewrite` say in the terminal."""

from pathlib import Path
from typing import Any

import typer

from karez.cli.output import table

TOP = 20
"""Rules and questions that are shown; the reports have all."""


def show_scan(found: dict[str, Any]) -> None:
    """What a scan found, in short."""
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
    for one in found["environment"]["stacks"][:1]:
        typer.echo(
            f"{found['environment']['note']} Newest that goes together: torch {one['torch']}, "
            f"torch_npu {one['torch_npu']}, CANN {one['cann']}, driver "
            f"{' or '.join(one['drivers']) or 'not published'} (karez migrate versions)"
        )
    if found["refusal"]:
        typer.echo(f"not for rewriting: {found['refusal']}")
    table(
        ("rule", "class", "places", "hours"),
        [(r["rule"], r["kind"], r["count"], f"{r['hours']:.1f}") for r in found["rules"][:TOP]],
        empty="nothing is bound to CUDA",
    )
    for one in found["unread"]:
        typer.echo(f"not read: {one['path']}: {one['why']}")


def show_plan(planned: Any, root: Path, *, written: bool) -> None:
    """What was or would be rewritten, and what is left to people."""
    done = "rewritten" if written else "would be rewritten"
    typer.echo(f"{len(planned.changes)} files {done}, {len(planned.made)} constructs", err=True)
    for path, why in planned.failed:
        typer.echo(f"left alone: {path}: {why}", err=True)
    left = list(planned.left)
    for one in left[:TOP]:
        typer.echo(f"{one.path}:{one.line}: {one.rule}: {one.question or one.reason}", err=True)
    if len(left) > TOP:
        typer.echo(f"and {len(left) - TOP} more: karez migrate scan {root}", err=True)


def plan_json(planned: Any, left: list[Any], *, written: bool) -> dict[str, Any]:
    """The same for machines."""
    return {
        "written": written,
        "files": [change.path for change in planned.changes],
        "rewritten": len(planned.made),
        "failed": [{"path": path, "why": why} for path, why in planned.failed],
        "left": [
            {
                "path": one.path,
                "line": one.line,
                "rule": one.rule,
                "kind": one.kind.value,
                "code": one.code,
                "question": one.question,
            }
            for one in left
        ],
    }
