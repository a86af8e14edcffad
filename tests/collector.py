"""An OpenTelemetry collector on loopback, for tests."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector(HTTPServer):
    """Takes OTLP over HTTP, or refuses it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refuses = False
        self.paths: set[str] = set()
        self.spans: list[tuple[str, str, str, str]] = []
        """(trace, span, parent, name) in the order in which they came."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.paths.add(self.path)
        if not self.server.refuses:
            request = ExportTraceServiceRequest.FromString(body)
            self.server.spans += [
                (one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex(), one.name)
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for one in scope.spans
            ]
        self.send_response(400 if self.server.refuses else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that runs."""
    made = Collector()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()
