"""Ascend software: installed versions, compatibility checks, and `karez migrate versions`."""

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from karez.ascend import installed_versions, version_matrix
from karez.ascend.stacks import Stack, where
from karez.cli.client_options import Json
from karez.cli.options import takes
from karez.cli.output import json_out, table
from karez.cli.terminal import say

MAX_SHOWN = 8
"""Number of software stacks printed in the terminal; `--json` has all."""


def here() -> dict[str, str]:
    """Versions installed on this machine, by part; empty without Ascend software."""
    toolkit = os.environ.get("ASCEND_HOME_PATH", "")  # noqa: TID251 - CANN's own variable
    found = installed_versions.installed(toolkit=toolkit)
    if not set(found) - {"torch"}:
        return {}
    return {**found, "python": ".".join(map(str, sys.version_info[:3]))}


def findings(found: dict[str, str]) -> Iterator[tuple[str, bool, str, str]]:
    """Yield for each pair of parts: name, whether compatible, version seen, how to fix it."""
    matches = version_matrix.judge(found)
    fix_all = ""
    if any(match.fine is False for match in matches):
        closest = version_matrix.nearest(found)
        if closest is not None and closest[1]:
            _, changes = closest
            fix_all = "least change: " + ", ".join(f"{part} {v}" for part, v in changes.items())
    for match in matches:
        seen = match.second if match.fine else f"{match.second}: {match.why}"
        fix = fix_all or "see `karez migrate versions`"
        yield match.first, match.fine is not False, seen, fix


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionOptions:
    """Options of `karez migrate versions`."""

    torch: Annotated[
        str, typer.Option(help="Version of torch, or a specifier such as '>=2,<3'.")
    ] = ""
    torch_npu: Annotated[
        str, typer.Option(help="Version of torch_npu, or a specifier such as '>=2,<3'.")
    ] = ""
    cann: Annotated[str, typer.Option(help="Version of CANN, or a specifier such as '>=2,<3'.")] = (
        ""
    )
    driver: Annotated[
        str, typer.Option(help="Version of the NPU driver, or a specifier such as '>=2,<3'.")
    ] = ""
    python: Annotated[
        str, typer.Option(help="Version of Python, or a specifier such as '>=2,<3'.")
    ] = ""
    engine: Annotated[
        str, typer.Option(help="Engine: vllm-ascend, mindie or mindspore, or NAME==VERSION.")
    ] = ""


@takes(VersionOptions)
def versions_command(options: VersionOptions, as_json: Json = False) -> None:
    """List compatible versions of driver, CANN, torch, torch_npu and engine, by published tables.

    Without options: stacks that fit what is installed here. Exit code 1 if none fits.

    Example: karez migrate versions --torch 2.9 --driver 25.5.0 --engine vllm-ascend
    """
    engine, _, pinned = options.engine.partition("==")
    wanted = _wanted(options, engine, pinned)
    is_filtered = bool(wanted or engine)
    stacks = (
        version_matrix.resolve(wanted, engine) if is_filtered else version_matrix.fitting(here())
    )
    if as_json:
        used = {source: where(source) for stack in stacks for source in stack.sources}
        json_out({"stacks": [asdict(stack) for stack in stacks], "sources": used})
    else:
        _show(stacks)
    if not stacks:
        raise typer.Exit(1)


def _wanted(options: VersionOptions, engine: str, pinned: str) -> dict[str, str]:
    """Requested versions by part."""
    requested = {
        "torch": options.torch,
        "torch_npu": options.torch_npu,
        "cann": options.cann,
        "driver": options.driver,
        "python": options.python,
        engine: pinned,
    }
    return {part: text for part, text in requested.items() if text}


def _show(stacks: list[Stack]) -> None:
    rows = [
        (
            f"{stack.engine} {stack.engine_version}".strip() or "-",
            stack.torch or "-",
            stack.torch_npu or "-",
            stack.cann,
            " or ".join(stack.drivers) or "not published",
            ", ".join(stack.pythons) or "not published",
        )
        for stack in stacks[:MAX_SHOWN]
    ]
    heads = ("engine", "torch", "torch_npu", "CANN", "driver", "Python")
    table(heads, rows, empty="no published stack has all of that: leave an option out")
    if len(stacks) > MAX_SHOWN:
        say(f"and {len(stacks) - MAX_SHOWN} older ones: --json has all", err=True)
    for source in dict.fromkeys(source for stack in stacks[:MAX_SHOWN] for source in stack.sources):
        say(f"source: {where(source)}", err=True)
