"""A job's recoveries as a table, a timeline and figures: `karez jobs receipts` and others."""

from karez.cli.client_options import JobName, Json, client
from karez.cli.output import clock, json_out, table
from karez.cli.terminal import say
from karez.core.api_models import ReceiptView
from karez.core.units import show_seconds

WIDTH = 56
"""Columns of a timeline's bar."""
RECEIPT_HEADS = (
    *("receipt", "fault", "rung", "state from", "ranks", "cause"),
    *("decided", "restored", "first step", "steps", "lost"),
)


def show_receipts(job: JobName, as_json: Json = False) -> None:
    """List a job's recoveries: fault, strategy, durations and steps lost."""
    found = client().receipts(job)
    if as_json:
        json_out(found)
        return
    rows = [
        (
            r.id,
            r.code,
            f"{r.rung}, emulated" if r.emulated else r.rung,
            r.source,
            ",".join(map(str, r.ranks)),
            r.cause[:50],
            show_seconds(r.decided_at - r.detected_at),
            show_seconds(max(0.0, r.restored_at - r.detected_at)),
            show_seconds(r.recovery_s),
            f"{r.step_before} -> {r.step_restored}",
            f"{r.steps_lost} of {r.snapshot_every}" if r.snapshot_every > 1 else r.steps_lost,
        )
        for r in found
    ]
    table(RECEIPT_HEADS, rows, empty="no recoveries: nothing went wrong")


def show_timeline(job: JobName) -> None:
    """Draw a job's recoveries: time to decide, to restore and to complete a step."""
    found = client().receipts(job)
    if not found:
        say("no recoveries: nothing went wrong")
        return
    longest = max(receipt.recovery_s for receipt in found)
    say(f"{'':19}  0 {'':{WIDTH - 12}} {show_seconds(longest):>8}")
    for receipt in found:
        say(
            f"{clock(receipt.detected_at):19}  {bar(receipt, longest)} "
            f"{receipt.code}, {receipt.rung}, {receipt.steps_lost} lost"
        )
    say(f"{'':19}  - confirmed, = decided, r restored, s first step complete")


def bar(receipt: ReceiptView, longest_s: float) -> str:
    """Draw one recovery as a bar of up to WIDTH columns, to scale."""
    ends = (
        ("-", max(receipt.confirmed_at, receipt.detected_at)),
        ("=", receipt.decided_at),
        ("r", receipt.restored_at),
        ("s", receipt.resumed_at),
    )
    drawn = ""
    for sign, end in ends:
        until = round(WIDTH * max(0.0, end - receipt.detected_at) / max(longest_s, 1e-9))
        drawn += sign * (until - len(drawn))
    return f"{drawn or 's':{WIDTH}}"


def show_goodput(job: JobName, as_json: Json = False) -> None:
    """Show the share of a job's time that went into steps that count, and recovery times."""
    found = client().goodput(job)
    if as_json:
        json_out(found)
        return
    rows: list[tuple[str, object]] = [
        ("goodput", f"{100 * found.goodput:.2f}%"),
        ("time", show_seconds(found.elapsed_s)),
        ("lost", show_seconds(found.lost_s)),
        ("interruptions", found.interruptions),
        ("restarts of the whole job", found.restarts),
        ("longest time without one", show_seconds(found.longest_run_s)),
        ("steps done again", found.steps_lost),
        ("mean recovery", show_seconds(found.mean_recovery_s)),
    ]
    rows += [
        (
            f"by {r.rung}",
            f"{r.count}: {show_seconds(r.median_s)} median, {show_seconds(r.longest_s)} longest",
        )
        for r in found.rungs
    ]
    table(("", ""), rows, empty="")
