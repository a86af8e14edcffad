"""Metrics: declared, recorded, shown by the API, listed in the guide and drawn by the dashboard."""

import json
from pathlib import Path

from karez.core.metrics import METRICS
from karez.server.metrics import PrometheusMetrics
from karez.serving.relay_counts import RelayCounts
from tests.api import Api

DOCS = Path(__file__).parents[2] / "docs"


def test_every_metric_can_be_recorded_and_is_shown() -> None:
    metrics = PrometheusMetrics()
    for spec in METRICS:
        labels = dict.fromkeys(spec.labels, "x")
        if spec.is_counter:
            metrics.count(spec.name, **labels)
            assert metrics.registry.get_sample_value(spec.name, labels) == 1
        else:
            metrics.observe(spec.name, 0.2, **labels)
            assert metrics.registry.get_sample_value(f"{spec.name}_sum", labels) == 0.2


def test_the_api_times_itself_by_route_and_not_by_address(api: Api) -> None:
    api.ask("GET", "/jobs/job-1")
    api.ask("GET", "/jobs/job-2")
    api.ask("GET", "/no-such-route")
    text = api.ask("GET", "/metrics").text
    assert 'karez_api_seconds_count{method="GET",route="/jobs/{job}",status="404"} 2.0' in text
    assert 'route="none",status="404"' in text
    assert "job-1" not in text
    assert "karez_workloads" in text


def test_the_guide_and_the_dashboard_have_every_metric_of_the_gateway() -> None:
    guide = (DOCS / "operators-guide.md").read_text()
    board = json.loads((DOCS / "grafana.json").read_text())
    drawn = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    lines = RelayCounts().metrics(0, 0).decode().splitlines()
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert len(names) == 12
    for name in names:
        assert f"| `{name}` |" in guide, name
        assert name in drawn, name


def test_the_guide_and_the_dashboard_have_every_metric(api: Api) -> None:
    guide = (DOCS / "operators-guide.md").read_text()
    board = json.loads((DOCS / "grafana.json").read_text())
    drawn = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    lines = api.ask("GET", "/metrics").text.splitlines()
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    shown = {name.removesuffix("_created") for name in names} | {spec.name for spec in METRICS}
    for name in shown:
        assert f"| `{name}` |" in guide, name
        assert name in drawn, name
