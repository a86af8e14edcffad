"""Metrics of control in Prometheus' form."""

from prometheus_client import CollectorRegistry, Counter, Histogram
from typing_extensions import override

from karez.core.metrics import METRICS, Metrics

BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0),
)
"""Upper bounds, in seconds: from a step of a controller to a day in the queue."""


class PrometheusMetrics(Metrics):
    """Holds one registry, whose text is that of `GET /api/v1/metrics`."""

    def __init__(self) -> None:
        """Declare all metrics, so that each is shown before its first event."""
        self.registry = CollectorRegistry()
        self._times = {
            spec.name: Histogram(
                spec.name, spec.help, spec.labels, buckets=BUCKETS_S, registry=self.registry
            )
            for spec in METRICS
            if not spec.is_counter
        }
        self._counts = {
            spec.name: Counter(spec.name, spec.help, spec.labels, registry=self.registry)
            for spec in METRICS
            if spec.is_counter
        }

    @override
    def observe(self, name: str, seconds: float, **labels: str) -> None:
        metric = self._times[name]
        (metric.labels(**labels) if labels else metric).observe(seconds)

    @override
    def count(self, name: str, **labels: str) -> None:
        metric = self._counts[name]
        (metric.labels(**labels) if labels else metric).inc()
