"""The admin port of every service: `/metrics`, `/health/live`, `/health/ready`, `/health/detailed`."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ingestcore.observe.health import Health, State
from ingestcore.observe.metrics import Metrics

_JSON = "application/json"


def serve(host: str, port: int, health: Health, metrics: Metrics) -> ThreadingHTTPServer:
    """Serve from a thread. port 0: any free one (`server.server_port` says which). Raises OSError: port taken."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].rstrip("/")
            if path == "/metrics":
                self._answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
            elif path == "/health/live":
                self._answer(200, b'{"status":"alive"}')
            elif path == "/health/ready":
                ready = health.state is State.READY
                self._answer(200 if ready else 503, orjson.dumps({"status": health.state.value}))
            elif path in ("/health/detailed", "/health"):
                self._answer(200, orjson.dumps(health.detailed(), default=str))
            else:
                self._answer(404, b'{"error":"paths: /metrics /health/live /health/ready /health/detailed"}')

        def _answer(self, status: int, body: bytes, kind: str = _JSON) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are no news."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="admin", daemon=True).start()
    return server
