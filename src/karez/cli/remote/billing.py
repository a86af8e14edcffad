"""`karez usage` and `karez prices`: what was used, what it costs, and whether the ledger holds."""

import csv
import sys
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Annotated

import typer

from karez.cli.client_options import Json, ProjectName, client
from karez.cli.options import takes
from karez.cli.output import json_out, table
from karez.cli.terminal import say
from karez.core.errors import BadRequest, Failed
from karez.core.ledger import Bill, BrokenLedger, verify
from karez.core.prices import ANY_MODEL, MICRO, NANO, PERCENT, Price
from karez.core.units import parse_seconds
from karez.core.usage import MinuteUsage, UsageRow

usage_app = typer.Typer(help="Show what was used and what it costs, and verify the ledger.")
prices_app = typer.Typer(no_args_is_help=True, help="List, set and remove the prices of models.")


@usage_app.callback(invoke_without_command=True)
def usage(context: typer.Context, as_json: Json = False) -> None:
    """Show tokens and cost per service, and device time per workload."""
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
    table(("model", "cost"), [*rows, ("all", money(bill.cost_nano) or "0")], empty="")
    say(f"{bill.lines:,} lines hold; keep the last hash: {bill.last_hash or 'none yet'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceOptions:
    """Options of `karez prices set`; amounts are for a million tokens."""

    model: Annotated[str, typer.Argument(help="Name of the service; * for all others.")]
    prompt: Annotated[float, typer.Option(help="Price of a million tokens of prompts.")] = 0.0
    cached: Annotated[
        float | None,
        typer.Option(help="The same of those that were computed before; else as the others."),
    ] = None
    completion: Annotated[float, typer.Option(help="Price of a million tokens of answers.")] = 0.0
    off_peak: Annotated[
        str, typer.Option(help="Hours in UTC with another rate, such as 22:00-06:00.")
    ] = ""
    off_peak_percent: Annotated[
        int, typer.Option(help="Part of the price that is charged then.")
    ] = PERCENT


@prices_app.command("set")
@takes(PriceOptions)
def set_price(options: PriceOptions) -> None:
    """Set the price of a model, for calls that are recorded from now on.

    Example: karez prices set support --prompt 0.15 --cached 0.03 --completion 0.6
    """
    try:
        price = Price(
            model=options.model,
            prompt=_micro(options.prompt),
            cached=None if options.cached is None else _micro(options.cached),
            completion=_micro(options.completion),
            off_peak=options.off_peak,
            off_peak_percent=options.off_peak_percent,
        )
    except (ValueError, OverflowError) as error:
        raise BadRequest(problem=str(error)) from error
    client().put_price(price)
    what = "all models without a price" if price.model == ANY_MODEL else price.model
    say(f"the price of {what} holds from now on")


def _micro(amount: float) -> int:
    return round(amount * MICRO)


@prices_app.command("list")
def list_prices(as_json: Json = False) -> None:
    """List the prices of models, for a million tokens."""
    found = client().prices()
    if as_json:
        json_out(found)
        return
    rows = [
        (
            price.model,
            *(f"{amount / MICRO:g}" for amount in (price.prompt, _cached(price), price.completion)),
            f"{price.off_peak_percent}% at {price.off_peak}" if price.off_peak else "",
        )
        for price in found
    ]
    heads = ("model", "prompt", "cached", "completion", "off-peak")
    table(heads, rows, empty="no prices; set one with `karez prices set`")


def _cached(price: Price) -> int:
    return price.prompt if price.cached is None else price.cached


@prices_app.command("remove")
def remove_price(
    model: Annotated[str, typer.Argument(help="Name of the service; * for all others.")],
) -> None:
    """Remove the price of a model."""
    client().drop_price(model)
    say(f"the price of {model} is removed")


APPS = {"usage": usage_app, "prices": prices_app}
