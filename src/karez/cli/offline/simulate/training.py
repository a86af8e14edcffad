"""`karez simulate training`: long training runs on a large fleet with failures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from karez.cli.client_options import Json
from karez.cli.offline.progress import bar, parse_seeds, write_page
from karez.cli.offline.simulate.options import Report
from karez.cli.options import takes
from karez.cli.output import table
from karez.cli.terminal import say
from karez.core.errors import BadRequest
from karez.core.units import show_seconds

if TYPE_CHECKING:  # NumPy: only where something is simulated
    from karez.simulation.fleet_plan import FleetPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Options of `karez simulate training`."""

    devices: Annotated[
        int, typer.Option(help="Number of devices of the gang; eight devices per node.")
    ] = 10_000
    days: Annotated[float, typer.Option(help="Length of the training in days.")] = 40.0
    fleet: Annotated[
        str, typer.Option(help="Fleet whose failure rate is used: llama3, rsc1, rsc2 or opt.")
    ] = "llama3"
    rate: Annotated[
        float | None,
        typer.Option(help="Failures per node and day, such as 4e-3, instead of a fleet's rate."),
    ] = None
    spares: Annotated[
        float, typer.Option(help="Warm spare nodes, as a share of the gang's nodes.")
    ] = 0.02
    elastic: Annotated[
        float, typer.Option(help="Share of its nodes that the gang can lose and still train.")
    ] = 0.0
    step: Annotated[float, typer.Option(help="Duration of one training step in seconds.")] = 6.0
    seeds: Annotated[
        str, typer.Option(help="Random seeds, one run each, such as 42-51 or 1,2,3.")
    ] = "0-99"
    report_file: Report = None


@takes(TrainingOptions)
def training_command(options: TrainingOptions, as_json: Json = False) -> None:
    """Simulate long training on a large fleet: goodput, restarts, and the cost of each failure.

    The protocol and the ladder are those that run real gangs. Rates and phase durations name their
    sources; assumed ones are marked as such (docs/recovery.md).

    Example: karez simulate training --devices 10000 --days 40 --seeds 0-99
    """
    from karez.simulation import fleet_report, fleet_simulation  # noqa: PLC0415 - NumPy, only here

    plan, source = _plan(options)
    seeds = parse_seeds(options.seeds)
    with bar("trainings", len(seeds)) as progress:
        runs = fleet_simulation.simulate_many(plan, seeds, progress=progress)
    figures = fleet_report.summarize(plan, runs)
    figures["source"] = source
    write_page(options.report_file, fleet_report.page_of(figures))
    if as_json:
        say(json.dumps(figures, indent=2))
    else:
        _show(figures)


def _plan(options: TrainingOptions) -> "tuple[FleetPlan, str]":
    """Build the fleet; the text is the source of the failure rate. Raises BadRequest."""
    from karez.simulation import (  # noqa: PLC0415 - NumPy, only here
        failure_rates,
        fleet_plan,
    )

    if options.fleet not in failure_rates.FLEETS:
        known = ", ".join(failure_rates.FLEETS)
        raise BadRequest(problem=f"there is no fleet {options.fleet!r}; there are {known}")
    if not 0 < options.step <= 3600:
        raise BadRequest(
            problem=f"a step takes more than 0 and up to 3,600 seconds, not {options.step:g}"
        )
    fleet = failure_rates.FLEETS[options.fleet]
    try:
        plan = fleet_plan.FleetPlan(
            devices=options.devices,
            days=options.days,
            per_node_day=fleet.per_node_day if options.rate is None else options.rate,
            spare_share=options.spares,
            elastic=options.elastic,
            phases=fleet_plan.PhaseDurations(step_s=options.step),
        )
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    return plan, fleet.source if options.rate is None else "given"


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
    _show_faults(figures)


def _show_faults(figures: dict[str, Any]) -> None:
    table(
        ("fault", "a day", "median", "longest", "% of the time"),
        [
            (
                row["name"],
                f"{row['per_day']:.3f}",
                show_seconds(row["median_s"]),
                show_seconds(row["max_s"]),
                f"{100 * row['share']:.4f}",
            )
            for row in figures["classes"]
        ],
        empty="no faults",
    )
    table(
        ("the same faults elsewhere", "each", "goodput"),
        [
            (row["name"], show_seconds(row["seconds"]), f"{100 * row['goodput']:.2f}%")
            for row in figures["peers"]
        ],
        empty="",
    )
