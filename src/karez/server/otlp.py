"""Sends the traces of jobs to an OpenTelemetry collector, over OTLP/HTTP."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags
from typing_extensions import override

import karez
from karez.core.traces import JobTracer, Span, Trace

log = structlog.get_logger()
EVERY_S = 2.0
"""Seconds between two looks at the jobs that have changed."""
TIMEOUT_S = 10.0
"""Seconds that a collector may take to answer."""
PATH = "/v1/traces"
"""Path of traces below an endpoint. Source: OTLP specification 1.9, OTLP/HTTP request."""


@dataclass(slots=True, kw_only=True)
class OtlpTracer(JobTracer):
    """Sends each span once it has ended. Nobody waits for a collector, or fails without one."""

    read: Callable[[str], Trace | None]
    """Reads the trace of a job; None: there is no such job any more."""
    exporter: SpanExporter
    _changed: set[str] = field(default_factory=set)
    _sent: dict[str, set[str]] = field(default_factory=dict)
    """Job that goes on -> ids of its spans that were sent."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sending: threading.Lock = field(default_factory=threading.Lock)
    """Held while spans are sent: the last ones are sent by whoever closes."""
    _stopped: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def to(cls, endpoint: str, read: Callable[[str], Trace | None]) -> "OtlpTracer":
        """Send to an endpoint such as http://collector:4318."""
        url = endpoint if endpoint.endswith(PATH) else endpoint.rstrip("/") + PATH
        return cls(read=read, exporter=OTLPSpanExporter(endpoint=url, timeout=TIMEOUT_S))

    @override
    def changed(self, job: str) -> None:
        with self._lock:
            self._changed.add(job)

    def start(self) -> None:
        """Send from a thread of its own from now on."""
        threading.Thread(target=self._work, name="otlp", daemon=True).start()

    @override
    def close(self) -> None:
        self._stopped.set()
        self.send()

    def send(self) -> bool:
        """Send what has ended since the last time. False: the collector did not take it."""
        with self._sending:
            return self._send_all()

    def _send_all(self) -> bool:
        with self._lock:
            jobs, self._changed = self._changed, set()
        left = [job for job in sorted(jobs) if not self._send_safely(job)]
        with self._lock:
            self._changed |= set(left)
        return not left

    def _work(self) -> None:
        while not self._stopped.wait(EVERY_S):
            self.send()

    def _send_safely(self, job: str) -> bool:
        try:
            return self._send(job)
        except Exception:
            log.exception("otlp.failed", job=job)
            return False

    def _send(self, job: str) -> bool:
        trace = self.read(job)
        if trace is None:
            return True
        sent = self._sent.setdefault(job, set())
        new = [span for span in trace.spans if span.ended_at is not None and span.id not in sent]
        if new and self.exporter.export(_readable(trace, new)) != SpanExportResult.SUCCESS:
            log.warning("otlp.refused", job=job, spans=len(new))
            return False
        sent.update(span.id for span in new)
        if trace.spans[0].ended_at is not None:
            del self._sent[job]
        return True


_RESOURCE = Resource.create({"service.name": "karez", "service.version": karez.__version__})
_SCOPE = InstrumentationScope("karez", karez.__version__)


def _readable(trace: Trace, spans: Sequence[Span]) -> Sequence[ReadableSpan]:
    return [
        ReadableSpan(
            name=span.name,
            context=_context(trace, span.id),
            parent=_context(trace, span.parent) if span.parent else None,
            resource=_RESOURCE,
            attributes=_attributes(trace, span),
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
            start_time=_ns(span.began_at),
            end_time=_ns(span.ended_at or span.began_at),
            instrumentation_scope=_SCOPE,
        )
        for span in spans
    ]


def _context(trace: Trace, span: str) -> SpanContext:
    return SpanContext(
        int(trace.id, 16),
        int(span, 16),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _attributes(trace: Trace, span: Span) -> Mapping[str, str | int | float | bool]:
    named = {f"karez.{name}": value for name, value in span.attributes.items()}
    return {**named, "karez.job": trace.job}


def _ns(at: float) -> int:
    return int(at * 1e9)
