"""Ascend's software: what is installed, whether it goes together, and what would."""

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from karez.ascend import version_matrix
from karez.cli.client_options import Json
from karez.cli.output import json_out, table

MOST = 8
Wanted = Annotated[str, typer.Option(help="A version, or a specifier such as '>=2.7,<2.10'.")]


def here() -> dict[str, str]:
    """What this machine has; empty where nothing of Ascend's is installed."""
    toolkit = os.environ.get("ASCEND_HOME_PATH", "")  # noqa: TID251 - CANN's own variable
    found = version_matrix.installed(toolkit=toolkit)
    if not set(found) - {"torch"}:
        return {}
    return {**found, "python": ".".join(map(str, sys.version_info[:3]))}


def findings(found: dict[str, str]) -> Iterator[tuple[str, bool, str, str]]:
    """For each pair: what, whether it is fine, what was seen, what to do."""
    matches = version_matrix.judge(found)
    mend = ""
    if any(match.fine is False for match in matches):
        closest = version_matrix.nearest(found)
        if closest is not None and closest[1]:
            _, changes = closest
            mend = "least change: " + ", ".join(f"{part} {v}" for part, v in changes.items())
    for match in matches:
        seen = match.second if match.fine else f"{match.second}: {match.why}"
        fix = mend or "see `karez migrate versions`"
        yield match.first, match.fine is not False, seen, fix


def versions_command(
    torch: Wanted = "",
    torch_npu: Wanted = "",
    cann: Wanted = "",
    driver: Wanted = "",
    python: Wanted = "",
    engine: Annotated[
        str, typer.Option(help="vllm-ascend, mindie or mindspore; NAME==VERSION pins it.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Which driver, CANN, torch, torch_npu and engine go together, by published tables.

    Without options: what is installed here, if anything is. Exit code 1 if nothing fits.

    Example: karez migrate versions --torch 2.9 --driver 25.5.0 --engine vllm-ascend
    """
    name, _, pinned = engine.partition("==")
    asked = {
        "torch": torch,
        "torch_npu": torch_npu,
        "cann": cann,
        "driver": driver,
        "python": python,
        name: pinned,
    }
    wanted = {part: text for part, text in asked.items() if text}
    is_asked = bool(wanted or name)
    found = version_matrix.resolve(wanted, name) if is_asked else version_matrix.fitting(here())
    if as_json:
        used = {source: version_matrix.where(source) for one in found for source in one.sources}
        json_out({"stacks": [asdict(one) for one in found], "sources": used})
    else:
        _show(found)
    if not found:
        raise typer.Exit(1)


def _show(found: list[version_matrix.Stack]) -> None:
    rows = [
        (
            f"{one.engine} {one.engine_version}".strip() or "-",
            one.torch or "-",
            one.torch_npu or "-",
            one.cann,
            " or ".join(one.drivers) or "not published",
            ", ".join(one.pythons) or "not published",
        )
        for one in found[:MOST]
    ]
    heads = ("engine", "torch", "torch_npu", "CANN", "driver", "Python")
    table(heads, rows, empty="no published stack has all of that: leave an option out")
    if len(found) > MOST:
        typer.echo(f"and {len(found) - MOST} older ones: --json has all", err=True)
    for source in dict.fromkeys(source for one in found[:MOST] for source in one.sources):
        typer.echo(f"source: {version_matrix.where(source)}", err=True)
