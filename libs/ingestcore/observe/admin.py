"""The HTTP port of a service, and of a whole fleet: `/metrics`, `/health/*` to look, `/admin/*` to act."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ingestcore.observe.health import Health, Pressure, State
from ingestcore.observe.metrics import Metrics

LOOK: Final = ("/metrics", "/health/live", "/health/ready", "/health/detailed")
ACT: Final = ("/admin/drain", "/admin/resume")
_NOT_HERE: Final = ("/admin/brownout",)
"""Typed by runbooks; this version sheds no rows."""
LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "::1")
"""Hosts that only this machine reaches."""
_BODY_BYTES: Final = 64 << 10


class Answer(NamedTuple):
    """status, and a value to be sent as JSON."""

    status: int
    told: Mapping[str, Any]


class Answers(Protocol):
    """What stands behind the port. Called from many threads."""

    def ready(self) -> Answer: ...

    def detailed(self) -> Mapping[str, Any]: ...

    def metrics(self) -> bytes:
        """-> Prometheus text format 0.0.4."""

    def drain(self) -> Answer: ...

    def resume(self) -> Answer: ...


class OneService:
    """The answers of one service process. `stage`: as metrics call it."""

    def __init__(self, health: Health, metrics: Metrics, stage: str) -> None:
        self._health, self._metrics, self._stage = health, metrics, stage
        metrics.at_scrape(self._show_state)

    def ready(self) -> Answer:
        state = self._health.state
        ready = state is State.READY
        return Answer(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, {"status": state.value})

    def detailed(self) -> Mapping[str, Any]:
        return self._health.detailed()

    def metrics(self) -> bytes:
        return generate_latest(self._metrics.registry)

    def _show_state(self) -> None:
        """Health knows it already: looked up when a scrape asks."""
        now = self._health.pressure
        for state in Pressure:
            self._metrics.set("ingest_backpressure_state", float(state is now), state=state.value)
        self._metrics.set("ingest_circuit_open", float(self._health.circuit_open), stage=self._stage)

    def drain(self) -> Answer:
        self._health.drain()
        return Answer(HTTPStatus.OK, {"backpressure": self._health.backpressure()})

    def resume(self) -> Answer:
        self._health.resume()
        return Answer(HTTPStatus.OK, {"backpressure": self._health.backpressure()})


def serve(host: str, port: int, answers: Answers, token: str | None = None) -> ThreadingHTTPServer:
    """Serve from a thread.

    port   0: any free one (`server.server_port` says which)
    token  what `/admin/*` asks for; None: nothing
    Raises OSError: port taken.
    """

    class Handler(_Handler):
        behind = answers
        secret = token

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="admin", daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    behind: Answers
    secret: str | None
    timeout = 30.0

    def do_GET(self) -> None:
        match self._path():
            case "/metrics":
                self._send(HTTPStatus.OK, self.behind.metrics(), CONTENT_TYPE_LATEST)
            case "/health/live":
                self._json(HTTPStatus.OK, {"status": "alive"})
            case "/health/ready":
                self._json(*self.behind.ready())
            case "/health" | "/health/detailed":
                self._json(HTTPStatus.OK, self.behind.detailed())
            case path if path in (*ACT, *_NOT_HERE):
                self._problem(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} acts: send a POST", Allow="POST")
            case path:
                self._problem(HTTPStatus.NOT_FOUND, f"no {path} here; there are {', '.join((*LOOK, *ACT))}")

    def do_POST(self) -> None:
        path = self._path()
        length = self.headers.get("Content-Length", "0")
        # Read, or the unread body resets the connection before the answer is seen.
        self.rfile.read(min(int(length) if length.isdigit() else 0, _BODY_BYTES))
        if path in LOOK:
            self._problem(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} only tells: send a GET", Allow="GET")
        elif path not in (*ACT, *_NOT_HERE):
            self._problem(HTTPStatus.NOT_FOUND, f"no {path} here; there are {', '.join((*LOOK, *ACT))}")
        elif not self._is_allowed():
            return
        elif path in _NOT_HERE:
            self._problem(HTTPStatus.NOT_IMPLEMENTED, "this version sheds no rows; /admin/drain stops taking them")
        else:
            self._json(*(self.behind.drain() if path == "/admin/drain" else self.behind.resume()))

    def _is_allowed(self) -> bool:
        """Answers itself where it is not."""
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            self._problem(HTTPStatus.FORBIDDEN, f"a page of {origin} may not act here")
            return False
        if self.secret is None:
            return True
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), self.secret.encode()):
            return True
        said = "the token is another one" if given else "no token was sent"
        detail = f"{said}: send `Authorization: Bearer ...` with the token in INGEST_ADMIN_TOKEN of the service"
        self._problem(HTTPStatus.UNAUTHORIZED, detail, **{"WWW-Authenticate": 'Bearer realm="ingest"'})
        return False

    def _path(self) -> str:
        return self.path.partition("?")[0].rstrip("/")

    def _json(self, status: int, told: Mapping[str, Any]) -> None:
        self._send(status, orjson.dumps(told, default=str), "application/json")

    def _problem(self, status: HTTPStatus, detail: str, **headers: str) -> None:
        """A problem document (RFC 9457)."""
        told = {"title": status.phrase, "status": status.value, "detail": detail}
        self._send(status, orjson.dumps(told), "application/problem+json", **headers)

    def _send(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are no news."""
