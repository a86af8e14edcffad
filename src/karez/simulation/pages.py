"""What a simulation came to, as a page."""

from karez.simulation.charts import Chart, Line, Table, page
from karez.simulation.packing import PackingReport
from karez.simulation.queueing import QueueReport, Times


def packing_page(report: PackingReport) -> str:
    """How full the pool was as more and more was asked for."""
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


def queue_page(report: QueueReport) -> str:
    """How long jobs waited and took."""
    rows = [("all", report.jct_s, report.queued_s)]
    rows += [(project.project, project.jct_s, project.queued_s) for project in report.projects]
    return page(
        f"Queueing: {report.policy}, durations {report.durations}",
        f"{report.jobs} jobs on {report.nodes} nodes with {report.devices} devices; "
        f"{report.preemptions} preemptions; {report.utilisation_pct:.1f}% of device time worked; "
        f"{report.left_out} jobs never fit.",
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
        ],
    )


def _row(name: str, jct: Times, queued: Times) -> tuple[str, ...]:
    hours = [jct.mean, jct.p50, jct.p99, queued.mean, queued.p50, queued.p99, queued.max]
    return (name, str(jct.jobs), *(f"{seconds / 3600:.2f}" for seconds in hours))
