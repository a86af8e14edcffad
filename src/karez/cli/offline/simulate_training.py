"""`karez simulate training`: what the recovery protocol makes of the faults of a large fleet."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.offline.progress import bar, parse_seeds, write_page
from karez.cli.output import table
from karez.core.errors import BadRequest
from karez.core.units import show_seconds


def training(
    devices: Annotated[int, typer.Option(help="Devices of the gang, eight to a node.")] = 10_000,
    days: Annotated[float, typer.Option(help="How long it trains.")] = 40.0,
    fleet: Annotated[str, typer.Option(help="Failure rate of: llama3, rsc1, rsc2, opt.")] = (
        "llama3"
    ),
    rate: Annotated[
        float | None, typer.Option(help="Or faults per node and day, such as 4e-3.")
    ] = None,
    spares: Annotated[float, typer.Option(help="Warm spare nodes, as a share.")] = 0.02,
    elastic: Annotated[float, typer.Option(help="Share of nodes it may do without.")] = 0.0,
    step: Annotated[float, typer.Option(help="Seconds of one step.")] = 6.0,
    seeds: Annotated[str, typer.Option(help="42-51, or 1,2,3.")] = "0-99",
    report_file: Annotated[
        Path | None, typer.Option("--report", help="Write an HTML page with a plot.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Simulate long training on a large fleet: goodput, restarts, and what each fault costs.

    The protocol and the ladder are those that run real gangs. Rates and phase times name their
    sources; those that were not measured say so (docs/recovery.md).

    Example: karez simulate training --devices 10000 --days 40 --seeds 0-99
    """
    from karez.simulation import failure_rates, fleet_report, fleet_simulation, recovery_simulation  # noqa: PLC0415 - NumPy, only here

    if fleet not in failure_rates.FLEETS:
        raise BadRequest(
            problem=f"there is no fleet {fleet!r}; there are {', '.join(failure_rates.FLEETS)}"
        )
    if not 0 < step <= 3600:
        raise BadRequest(problem=f"a step takes more than 0 and up to 3,600 seconds, not {step:g}")
    chosen = failure_rates.FLEETS[fleet]
    try:
        plan = recovery_simulation.FleetPlan(
            devices=devices,
            days=days,
            per_node_day=chosen.per_node_day if rate is None else rate,
            spare_share=spares,
            elastic=elastic,
            phases=recovery_simulation.PhaseDurations(step_s=step),
        )
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    numbers = parse_seeds(seeds)
    with bar("trainings", len(numbers)) as progress:
        lives = fleet_simulation.simulate_many(plan, numbers, progress=progress)
    figures = fleet_report.summarize(plan, lives)
    figures["source"] = chosen.source if rate is None else "given"
    write_page(report_file, fleet_report.page_of(figures))
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
    else:
        _show(figures)


def _show(figures: dict[str, Any]) -> None:
    good, runs = figures["goodput"], figures["runs"]
    rows: Sequence[tuple[str, object]] = [
        ("devices", f"{figures['devices']:,} for {figures['days']:g} days, {runs} times"),
        ("goodput", f"{100 * good['mean']:.3f}% on average, {100 * good['min']:.3f}% at least"),
        ("without a restart of the job", f"{100 * figures['without_restart']:.0f}% of the runs"),
        ("longest time without one", f"{figures['longest_run_days']['mean']:.1f} days on average"),
        ("interruptions a day", f"{figures['interruptions_per_day']:.2f}"),
        ("recovery, median", show_seconds(figures["recovery_s"]["median"])),
        ("recovery, 99%", show_seconds(figures["recovery_s"]["p99"])),
        ("recovery, longest", show_seconds(figures["recovery_s"]["max"])),
    ]
    table(("", ""), rows, empty="")
    table(
        ("fault", "a day", "median", "longest", "% of the time"),
        [
            (
                one["name"],
                f"{one['per_day']:.3f}",
                show_seconds(one["median_s"]),
                show_seconds(one["max_s"]),
                f"{100 * one['share']:.4f}",
            )
            for one in figures["classes"]
        ],
        empty="no faults",
    )
    table(
        ("the same faults elsewhere", "each", "goodput"),
        [
            (one["name"], show_seconds(one["seconds"]), f"{100 * one['goodput']:.2f}%")
            for one in figures["peers"]
        ],
        empty="",
    )
