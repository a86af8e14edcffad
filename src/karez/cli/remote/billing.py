"""`karez usage`: what was used, what it costs, and whether the ledger holds."""

import csv
import sys
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Annotated

import typer

from karez.cli.client_options import Json, ProjectName, client
from karez.cli.output import json_out, table
from karez.cli.terminal import say
from karez.core.errors import BadRequest, Failed
from karez.core.ledger import Bill, BrokenLedger, verify
from karez.core.prices import NANO
from karez.core.units import parse_seconds
from karez.core.usage import MinuteUsage, UsageRow

HOUR_S = 3600
usage_app = typer.Typer(help="Show what was used and what it costs, and verify the ledger.")


@usage_app.callback(invoke_without_command=True)
def usage(context: typer.Context, as_json: Json = False) -> None:
    """Show tokens per service, device time per workload, and what they cost."""
    if context.invoked_subcommand is not None:
        return
    found = client().usage()
    if as_json:
        json_out(found)
        return
    heads = ("project", "what", "kind", "requests", "prompt tokens", "cached", "new tokens")
    table((*heads, "cost", "devices"), [*map(_usage_cells, found)], empty="nothing was used yet")


def _usage_cells(row: UsageRow) -> tuple[object, ...]:
    tokens = (row.prompt_tokens, row.cached_tokens, row.completion_tokens)
    devices = f"{row.device_seconds:.0f} {row.device_kind}-s" if row.device_kind else ""
    counts = (count or "" for count in (row.requests, *tokens))
    return (row.project, row.what, row.kind, *counts, money(row.cost_nano), devices)


def money(nano: int) -> str:
    """An amount in the currency; empty for none."""
    return f"{nano / NANO:.6f}" if nano else ""


@usage_app.command("minutes")
def usage_by_minute(
    last: Annotated[str, typer.Option(help="Time to look back, such as 1h or 30d.")] = "1h",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Json = False,
) -> None:
    """Show usage by minute, project, key and service.

    Example: karez usage minutes --last 30d --csv > usage.csv
    """
    try:
        span_s = parse_seconds(last)
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    found = client().usage_minutes(span_s)
    if as_json:
        json_out(found)
        return
    if as_csv:
        names = [field.name for field in fields(MinuteUsage)]
        writer = csv.DictWriter(sys.stdout, names)
        writer.writeheader()
        writer.writerows(asdict(row) for row in found)
        return
    rows = [
        (
            datetime.fromtimestamp(r.minute, UTC).strftime("%Y-%m-%d %H:%M"),
            *(r.project, r.service, r.key_id, r.requests),
            *(r.prompt_tokens, r.cached_tokens, r.completion_tokens, money(r.cost_nano)),
        )
        for r in found
    ]
    heads = ("minute (UTC)", "project", "service", "key", "requests")
    more = ("prompt tokens", "cached", "new tokens", "cost")
    table((*heads, *more), rows, empty="nothing was used in that time")


@usage_app.command("verify")
def verify_ledger(
    project: ProjectName = "default",
    expect: Annotated[
        str, typer.Option(help="Hash that an earlier verification has told; it must be there.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check each line of a project's ledger against the one before, and compute the bill again.

    Devices that are held still are in the ledger up to the last full hour.

    Example: karez usage verify --project shop --expect 9f2c...
    """
    bill, is_there = Bill(project=project), not expect
    try:
        while lines := client().ledger(project, bill.lines):
            verify(bill, lines)
            is_there = is_there or any(line.hash == expect for line in lines)
    except BrokenLedger as error:
        raise Failed(noun="ledger", name=project, reason=str(error)) from error
    if not is_there:
        reason = f"no line has the hash {expect}: the ledger is not the one that was verified then"
        raise Failed(noun="ledger", name=project, reason=reason)
    if as_json:
        json_out(bill)
        return
    rows = [(model, money(cost) or "0") for model, cost in sorted(bill.by_model.items())]
    rows += [
        (f"{device}, {bill.device_seconds[device] / HOUR_S:.2f} h", money(cost) or "0")
        for device, cost in sorted(bill.by_device.items())
    ]
    table(("model or device", "cost"), [*rows, ("all", money(bill.cost_nano) or "0")], empty="")
    say(f"{bill.lines:,} lines hold; keep the last hash: {bill.last_hash or 'none yet'}")


APPS = {"usage": usage_app}
