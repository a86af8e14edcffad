"""Report on simulated trainings: figures, and an HTML page."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from karez.simulation.charts import Chart, Line, Table, page
from karez.simulation.failure_rates import PEERS
from karez.simulation.fleet_plan import DAY_S, FleetPlan
from karez.simulation.fleet_simulation import SimulatedRecovery, TrainingRun


def summarize(plan: FleetPlan, lives: Sequence[TrainingRun]) -> dict[str, Any]:
    """All figures, as the JSON report has them."""
    span_s = plan.days * DAY_S
    goodputs = [life.goodput for life in lives]
    every = [one for life in lives for one in life.recoveries]
    seconds = [one.seconds for one in every if one.rung != "restart"]
    by_name: dict[str, list[SimulatedRecovery]] = {}
    for one in every:
        by_name.setdefault(one.name, []).append(one)
    count_mean = len(every) / len(lives)
    return {
        "devices": plan.devices,
        "nodes": plan.nodes,
        "days": plan.days,
        "per_node_day": plan.per_node_day,
        "runs": len(lives),
        "goodput": _spread(goodputs),
        "without_restart": float(np.mean([not life.restarts for life in lives])),
        "restarts": sum(len(life.restarts) for life in lives),
        "longest_run_days": _spread([life.longest_run_days for life in lives]),
        "interruptions_per_day": count_mean / plan.days,
        "recovery_s": _spread(seconds),
        "within_ten_minutes": float(np.mean([s <= 600 for s in seconds])) if seconds else 1.0,
        "rungs": {
            rung: sum(one.rung == rung for one in every)
            for rung in sorted({one.rung for one in every})
        },
        "classes": [
            {
                "name": name,
                "per_day": len(found) / len(lives) / plan.days,
                "median_s": float(np.median([one.seconds for one in found])),
                "max_s": max(one.seconds for one in found),
                "share": sum(one.lost_s for one in found) / len(lives) / span_s,
            }
            for name, found in sorted(by_name.items())
        ],
        "peers": [
            {
                "name": peer.name,
                "seconds": peer.seconds,
                "goodput": max(0.0, 1.0 - count_mean * peer.seconds / span_s),
                "source": peer.source,
            }
            for peer in PEERS
        ],
        "phases": asdict(plan.phases),
        "histogram": _histogram(seconds),
    }


def page_of(figures: dict[str, Any]) -> str:
    """Render the figures as a page with a plot."""
    good = figures["goodput"]
    return page(
        f"Training on {figures['devices']:,} devices for {figures['days']:g} days",
        f"{figures['runs']} simulated trainings; goodput {100 * good['mean']:.3f}% on average, "
        f"{100 * figures['without_restart']:.0f}% without a restart of the job.",
        [
            Chart(
                title="How long recoveries took",
                across="seconds",
                upward="% of recoveries that took no longer",
                lines=[Line(name="recoveries", points=figures["histogram"])],
            ),
            Table(
                title="What each class of faults cost",
                heads=("fault", "a day", "median s", "longest s", "% of the time"),
                rows=[
                    (
                        one["name"],
                        f"{one['per_day']:.3f}",
                        f"{one['median_s']:.1f}",
                        f"{one['max_s']:.1f}",
                        f"{100 * one['share']:.4f}",
                    )
                    for one in figures["classes"]
                ],
            ),
            Table(
                title="The same faults, at what others publish for one interruption",
                heads=("system", "seconds each", "goodput %"),
                rows=[
                    (one["name"], f"{one['seconds']:g}", f"{100 * one['goodput']:.2f}")
                    for one in figures["peers"]
                ],
            ),
        ],
    )


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {"mean": 0.0, "median": 0.0, "p99": 0.0, "min": 0.0, "max": 0.0}
    found = np.asarray(values)
    return {
        "mean": float(found.mean()),
        "median": float(np.median(found)),
        "p99": float(np.quantile(found, 0.99)),
        "min": float(found.min()),
        "max": float(found.max()),
    }


def _histogram(seconds: Sequence[float]) -> list[tuple[float, float]]:
    """Points of the distribution, up to its 99.9th percentile."""
    if not seconds:
        return [(0.0, 100.0)]
    shares = [number / 100 for number in range(100)] + [0.999]
    ends = np.quantile(np.asarray(seconds), shares)
    return [(round(float(end), 3), 100 * share) for end, share in zip(ends, shares, strict=True)]
