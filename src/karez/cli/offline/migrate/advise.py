"""`karez migrate advise` and `rules`: performance advice, and the catalogue of rewrite rules."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json
from karez.cli.output import table
from karez.cli.terminal import say

SOURCES = (
    "Sources: rules of msprof-analyze's advisor, Ascend's documentation, what migrations met. "
    "Measure on the device before and after changing anything."
)


def advise_command(
    root: Annotated[Path, typer.Argument(help="Folder or file of source code to examine.")],
    profile: Annotated[
        Path | None,
        typer.Option(help="Folder that torch_npu's profiler wrote, named ..._ascend_pt."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Report what in the source is slow on an NPU, and the hotspots of a profile.

    Example: karez migrate advise ~/src/nanoGPT --profile prof/host_1_ascend_pt
    """
    from karez.tuning import advice, profile_analysis  # noqa: PLC0415 - keeps --help fast

    found = advice.advise(root)
    hotspots = profile_analysis.look(profile) if profile is not None else []
    if as_json:
        both = {
            "source": [asdict(item) for item in found],
            "profile": [asdict(item) for item in hotspots],
        }
        say(json.dumps(both, indent=1))
        return
    if profile is not None:
        _show_hotspots(hotspots)
    _show_advice(found)
    if found or hotspots:
        say(SOURCES, err=True)


def _show_advice(found: Sequence[Any]) -> None:
    rows = [(f"{item.path}:{item.line}", item.rule, item.reason, item.source) for item in found]
    table(("place", "rule", "reason", "source"), rows, empty="no advice for this source")


def _show_hotspots(hotspots: Sequence[Any]) -> None:
    table(
        ("measured", "what", "times", "ms", "share", "what to do", "source"),
        [
            (
                item.rule,
                item.what,
                item.count,
                f"{item.time_us / 1000:.1f}",
                f"{100 * item.share:.0f}%" if item.share else "",
                item.reason,
                item.source,
            )
            for item in hotspots
        ],
        empty="no hotspots in the profile",
    )


def rules_command(as_json: Json = False) -> None:
    """List the rewrite rules: name, class and reason of each.

    Example: karez migrate rules --json
    """
    from karez.migration.rules.catalogue import CATALOGUE  # noqa: PLC0415 - keeps --help fast

    rows = [(rule.id(), rule.kind.value, rule.reason()) for rule in CATALOGUE]
    if as_json:
        keys = ("rule", "kind", "reason")
        say(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=1))
    else:
        table(("rule", "class", "reason"), rows, empty="")
