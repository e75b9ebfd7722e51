"""Takes spans over OTLP (http/protobuf) and keeps them: a stand-in for a collector, which has no package to install.

The exporter and the bytes on the wire are the real ones. `collector` puts a real collector before it.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Received:
    """One span. Ids are hex; parent "": a root. `links`: ids of linked spans."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    seconds: float
    failed: bool
    attributes: dict[str, Any]


class SpanReceiver:
    """`url` is what OTEL_EXPORTER_OTLP_ENDPOINT wants."""

    def __init__(self, server: ThreadingHTTPServer, spans: list[Received]) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.spans = spans

    def by_id(self) -> dict[str, Received]:
        return {span.id: span for span in self.spans}


@contextmanager
def receiving() -> Iterator[SpanReceiver]:
    """-> a receiver that serves until the end of the block."""
    spans: list[Received] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            spans.extend(_decoded(body))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, name="spans", daemon=True).start()
    try:
        yield SpanReceiver(server, spans)
    finally:
        server.shutdown()
        server.server_close()


def _decoded(body: bytes) -> Iterator[Received]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        named = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Received(
                    service=named.get("service.name", ""),
                    name=span.name,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    links=tuple(link.span_id.hex() for link in span.links),
                    seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    failed=span.status.code == 2,
                    attributes={a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes},
                )
