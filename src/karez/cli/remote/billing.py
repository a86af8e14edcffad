"""`karez usage`: what was used, what it costs, and whether the ledger holds."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json, ProjectName, client
from karez.cli.output import json_out, table
from karez.cli.terminal import say
from karez.core.errors import BadRequest, Failed
from karez.core.ledger import Bill, BrokenLedger, verify
from karez.core.prices import NANO
from karez.core.settlement import Handover, ServiceUse
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
    found = client().usage_minutes(_seconds(last))
    if as_json:
        json_out(found)
        return
    if as_csv:
        _write_csv(MinuteUsage, found)
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


@usage_app.command("settlement")
def settlement(
    last: Annotated[str, typer.Option(help="Time to look back, such as 24h or 30d.")] = "24h",
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print who gave what to whom as CSV.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show which devices training and services gave each other, and what that spared.

    Example: karez usage settlement --last 7d
    """
    found = client().settlement(_seconds(last))
    if as_json:
        json_out(found)
        return
    if as_csv:
        _write_csv(Handover, found.handovers)
        return
    heads = ("from", "to", "device", "times", "device hours", "idle between", "replica waited")
    table(heads, [*map(_handover_cells, found.handovers)], empty="nothing was given or left")
    if found.services:
        say("")
        services = ("service", "device", "peak", "device hours", "spared")
        table(services, [*map(_service_cells, found.services)], empty="")
        say("spared: device hours that as many devices as at the peak would have stood idle")
    for kind, seconds in found.job_device_s.items():
        say(f"jobs held {_hours(seconds)} {kind} hours")


def _handover_cells(one: Handover) -> tuple[object, ...]:
    waited = ""
    if one.waited_p50_s is not None and one.waited_max_s is not None:
        waited = f"{one.waited_p50_s:.1f} s, at most {one.waited_max_s:.1f} s"
    idle = f"{one.idle_p50_s:.1f} s, at most {one.idle_max_s:.1f} s"
    ends = _whose(one.from_project, one.from_name), _whose(one.to_project, one.to_name)
    return (*ends, one.kind, one.times, _hours(one.device_s), idle, waited)


def _service_cells(one: ServiceUse) -> tuple[object, ...]:
    hours = _hours(one.device_s), _hours(one.spared_s)
    return (_whose(one.project, one.name), one.kind, f"{one.peak:g}", *hours)


def _whose(project: str, name: str) -> str:
    return f"{project}/{name}" if project else "other projects"


def _hours(seconds: float) -> str:
    return f"{seconds / HOUR_S:,.2f}"


def _seconds(text: str) -> float:
    """Read a time. Raises BadRequest."""
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error


def _write_csv(kind: type, rows: Sequence[Any]) -> None:
    writer = csv.DictWriter(sys.stdout, [field.name for field in fields(kind)])
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)


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
