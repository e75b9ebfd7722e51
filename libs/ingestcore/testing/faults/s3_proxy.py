"""A proxy of our own before the real S3 server, which misbehaves when told to.

It speaks HTTP, since a TCP proxy can cut connections but cannot answer 503 SlowDown or forget an answer.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import threading
import time
from enum import StrEnum
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

_PIECE_BYTES: Final = 256 << 10
_UPSTREAM_SECONDS: Final = 30.0
_STALL_SECONDS: Final = 1.0
_HOP_BY_HOP: Final = frozenset(("connection", "keep-alive", "transfer-encoding", "expect"))
_SLOW_DOWN: Final = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Mischief(StrEnum):
    """What happens to a request.

    SLOW_DOWN    503 SlowDown, nothing is done
    RESET        the connection is reset before anything is done
    TRUNCATE     the answer's body ends half-way, in a clean end of the connection
    LOSE_ANSWER  done, and the connection is reset instead of the answer
    STALL        done, a second late
    """

    SLOW_DOWN = "slow-down"
    RESET = "reset"
    TRUNCATE = "truncate"
    LOSE_ANSWER = "lose-answer"
    STALL = "stall"


class S3Proxy:
    """Listens from the start; `misbehave` and `behave` may be called at any time from any thread."""

    def __init__(self, target_url: str) -> None:
        place = urlsplit(target_url)
        assert place.hostname and place.port
        self.target = (place.hostname, place.port)
        self._mischief: Mischief | None = None
        self._share, self._draw, self._lock = 0.0, random.Random(0), threading.Lock()
        self.hits = 0
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="s3-proxy", daemon=True).start()

    def misbehave(self, mischief: Mischief, share: float, seed: int) -> None:
        """From now on do this to a share of all requests."""
        with self._lock:
            self._mischief, self._share, self._draw, self.hits = mischief, share, random.Random(seed), 0

    def behave(self) -> int:
        """-> requests harmed since `misbehave`."""
        with self._lock:
            self._mischief = None
            return self.hits

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fate_of_request(self) -> Mischief | None:
        with self._lock:
            if self._mischief is None or self._draw.random() >= self._share:
                return None
            self.hits += 1
            return self._mischief


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # of a client that was killed
            super().handle_error(request, client_address)


def _handler(proxy: S3Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def _serve(self) -> None:
            fate = proxy.fate_of_request()
            if fate is Mischief.RESET:
                return self._reset()
            if fate is Mischief.SLOW_DOWN:
                return self._slow_down()
            upstream = HTTPConnection(*proxy.target, timeout=_UPSTREAM_SECONDS)
            try:
                answer = self._pass_on(upstream)
                if fate is Mischief.STALL:
                    time.sleep(_STALL_SECONDS)
                if fate is Mischief.LOSE_ANSWER:
                    answer.read()
                    return self._reset()
                self._answer(answer, cut=fate is Mischief.TRUNCATE)
            except (OSError, HTTPException):
                self._reset()  # the server is away or the client is gone
            finally:
                upstream.close()
            return None

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

        def _pass_on(self, upstream: HTTPConnection) -> HTTPResponse:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    upstream.putheader(name, value)
            upstream.endheaders()
            left = int(self.headers.get("Content-Length") or 0)
            while left:
                piece = self.rfile.read(min(left, _PIECE_BYTES))
                if not piece:
                    raise ConnectionError("the client went away")
                upstream.send(piece)
                left -= len(piece)
            return upstream.getresponse()

        def _answer(self, answer: HTTPResponse, *, cut: bool) -> None:
            length = answer.getheader("Content-Length")
            body = b"" if length is not None else answer.read()
            size = len(body) if length is None else int(length)
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if self.command == "HEAD":
                return
            left = size // 2 if cut else size
            self.close_connection = self.close_connection or cut
            while left:
                piece = body[:left] or answer.read(min(left, _PIECE_BYTES))
                if not piece:
                    raise ConnectionError("the server went away")
                self.wfile.write(piece)
                left -= len(piece)

        def _slow_down(self) -> None:
            left = int(self.headers.get("Content-Length") or 0)
            while left:
                left -= len(self.rfile.read(min(left, _PIECE_BYTES))) or left
            self.send_response_only(503, "Slow Down")
            self.send_header("Content-Length", str(len(_SLOW_DOWN)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(_SLOW_DOWN)

        def _reset(self) -> None:
            """RST, not FIN: what has not been sent is thrown away."""
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    return Handler
