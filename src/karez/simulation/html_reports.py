"""Renders the reports of simulations as HTML pages."""

from collections.abc import Sequence

from karez.simulation.charts import Chart, Line, Table, page
from karez.simulation.colocation_report import ColocationPoint, ColocationReport
from karez.simulation.packing import PackingReport
from karez.simulation.queue_report import QueueReport, Times


def packing_page(report: PackingReport) -> str:
    """Page of a packing report: how full the pool is as demand grows."""
    allocated = Line(
        name="allocated",
        points=[(p.arrived_pct, p.allocated_pct.mean) for p in report.points],
        band=[p.allocated_pct.sd for p in report.points],
    )
    fragmented = Line(
        name="fragmented",
        points=[(p.arrived_pct, p.fragmented_pct.mean) for p in report.points],
        band=[p.fragmented_pct.sd for p in report.points],
    )
    shown = [point for point in report.points if point.arrived_pct % 10 == 0]
    return page(
        f"Packing: {report.policy}",
        f"{report.nodes} nodes with {report.devices:g} devices, {report.pods} kinds of arrivals, "
        f"{len(report.seeds)} random orders; bands are one standard deviation.",
        [
            Chart(
                title="The pool as it fills",
                across="asked for, % of devices",
                upward="% of devices",
                lines=[allocated, fragmented],
            ),
            Table(
                title="In numbers",
                heads=("asked for %", "allocated %", "sd", "fragmented %", "sd"),
                rows=[
                    (
                        f"{p.arrived_pct}",
                        f"{p.allocated_pct.mean:.2f}",
                        f"{p.allocated_pct.sd:.2f}",
                        f"{p.fragmented_pct.mean:.2f}",
                        f"{p.fragmented_pct.sd:.2f}",
                    )
                    for p in shown
                ],
            ),
        ],
    )


def queue_words(report: QueueReport) -> str:
    """Summarise a replay in one sentence."""
    said = (
        f"{report.jobs} jobs on {report.nodes} nodes with {report.devices} accelerators, policy "
        f"{report.policy}, durations {report.durations}; {report.left_out} jobs never fit; "
        f"{report.preemptions} preemptions; {report.utilisation_pct:.1f}% of device time worked"
    )
    for count, what in (
        (report.interruptions, "interruptions by failed nodes"),
        (report.resizes, "changes of size"),
        (report.missed_deadlines, "deadlines missed"),
        (report.unfinished, "jobs that could not end"),
    ):
        said += f"; {count} {what}" if count else ""
    return said


def queue_page(report: QueueReport) -> str:
    """Page of a queueing report: how long jobs waited and took."""
    rows = [("all", report.jct_s, report.queued_s)]
    rows += [(f"class {one.name}", one.jct_s, one.queued_s) for one in report.classes if one.name]
    rows += [(one.name, one.jct_s, one.queued_s) for one in report.projects]
    return page(
        f"Queueing: {report.policy}, durations {report.durations}",
        f"{queue_words(report)}.",
        [
            Chart(
                title="How much was in use",
                across="days",
                upward="devices",
                lines=[Line(name="devices in use", points=report.use)],
            ),
            Table(
                title="Hours from arrival to end, and of these waiting",
                heads=("project", "jobs", "mean", "p50", "p99", "waits: mean", "p50", "p99", "max"),
                rows=[_row(name, jct, queued) for name, jct, queued in rows],
            ),
            Table(
                title="What was held",
                heads=("resource", "on average %", "at most %"),
                rows=[(k.kind, f"{k.mean_pct:.1f}", f"{k.peak_pct:.1f}") for k in report.kinds],
            ),
            Table(
                title="Why jobs waited",
                heads=("reason", "% of those asked"),
                rows=[(reason, f"{100 * part:.1f}") for reason, part in report.reasons],
            ),
        ],
    )


def colocation_page(report: ColocationReport) -> str:
    """Page of a colocation report: load, capacity, and devices that trained."""
    gain = f" Devices are used {report.use_gain:.2f} times as much as in halves."
    if report.training_gain is not None:
        gain += f" Training done: {report.training_gain:.2f} times that of the split pool."
    return page(
        "Services and training on one pool",
        f"{report.devices:g} devices, {report.ticks:,} ticks of {report.tick_s:g} s.{gain}",
        [
            Chart(
                title="Replicas that requests keep busy, and replicas that serve",
                across="hours",
                upward="replicas",
                lines=[
                    Line(name="busy", points=[(p.at_s / 3600, p.load) for p in _thinned(report)]),
                    Line(
                        name="serve", points=[(p.at_s / 3600, p.capacity) for p in _thinned(report)]
                    ),
                ],
            ),
            Chart(
                title="Devices that trained",
                across="hours",
                upward="devices",
                lines=[
                    Line(
                        name="training",
                        points=[(p.at_s / 3600, p.training_devices) for p in _thinned(report)],
                    )
                ],
            ),
            Table(
                title="Side by side",
                heads=(
                    "arrangement",
                    "unserved %",
                    "waited p99, s",
                    "device use %",
                    "training device-hours",
                    "replicas",
                    "peak",
                ),
                rows=[
                    (
                        one.name,
                        f"{one.unserved_pct:.2f}",
                        f"{one.waited_p99_s:.0f}",
                        f"{one.device_use_pct:.1f}",
                        f"{one.training_device_hours:.1f}",
                        f"{one.replicas_mean:.1f}",
                        f"{one.replicas_peak}",
                    )
                    for one in (report.shared, report.halves, report.split)
                ],
            ),
        ],
    )


MOST_POINTS = 600
"""Largest number of points of a curve."""


def _thinned(report: ColocationReport) -> Sequence[ColocationPoint]:
    return report.points[:: max(1, len(report.points) // MOST_POINTS)]


def _row(name: str, jct: Times, queued: Times) -> tuple[str, ...]:
    hours = [jct.mean, jct.p50, jct.p99, queued.mean, queued.p50, queued.p99, queued.max]
    return (name, str(jct.jobs), *(f"{seconds / 3600:.2f}" for seconds in hours))
