"""HTTP/1.1 of uvicorn with deadlines for headers and bodies, limits for headers before an application is asked, and a
close that lets a producer read why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import chain
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.webhook_gateway.problems import CONTENT_TYPE, Kind, Problem
from services.webhook_gateway.settings import GatewaySettings

_STATUS: Final = b"HTTP/1.1 "
_CONTINUE: Final = b"HTTP/1.1 100 "
LATE: Final = "late"
"""Stands in the scope of a request whose body was not there in time: `receive` comes back, and answering is up to the
application."""


class _InOneWrite:
    """The transport as uvicorn sees it: head and body of an answer leave together. uvicorn writes them one by one, and
    uvloop sends what is written at once: a system call more, and a packet more for the client to wake up for."""

    def __init__(self, transport: Any, close: Callable[[], None]) -> None:
        """close: what to do instead of closing the transport, once the answer is on its way."""
        self._transport, self._close = transport, close
        self._closing = False
        self._head = b""

    def write(self, data: bytes) -> None:
        if not self._head and data.startswith(_STATUS) and not data.startswith(_CONTINUE):
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def flush(self) -> None:
        """An answer without a body ends here."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._closing = True
        self._close()

    def is_closing(self) -> bool:
        return self._closing or bool(self._transport.is_closing())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def limited(settings: GatewaySettings) -> type[HttpToolsProtocol]:
    """-> the protocol class of a gateway with these limits."""

    class Limited(HttpToolsProtocol):
        """One connection."""

        _deadline: asyncio.TimerHandle | None = None
        _head_bytes = 0
        _in_head = True
        _only_discards = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._connection = transport
            self._writing = _InOneWrite(transport, self._close)
            self.transport = cast(asyncio.Transport, self._writing)
            if len(self.connections) > settings.max_connections:
                transport.abort()
                return
            self._await_rest()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._only_discards:
                return
            if self._in_head:
                self._head_bytes += len(data)
            super().data_received(data)
            if (self._in_head and not self._head_bytes) or self.transport.is_closing():
                return
            if self._head_bytes > settings.max_header_bytes and self._in_head:
                self._refuse(Problem(Kind.HEADERS_TOO_LARGE, f"more than {settings.max_header_bytes} bytes"))
            elif self._deadline is None:
                self._await_rest()

        def on_headers_complete(self) -> None:
            self._in_head = False
            self._stop_waiting()
            if sum(map(len, chain.from_iterable(self.headers))) > settings.max_header_bytes:
                self._refuse(Problem(Kind.HEADERS_TOO_LARGE, f"more than {settings.max_header_bytes} bytes"))
                return
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._in_head, self._head_bytes = True, 0
            if not self._only_discards:
                self._stop_waiting()
            if self.cycle is not None:
                super().on_message_complete()

        def on_response_complete(self) -> None:
            self._writing.flush()
            super().on_response_complete()

        def on_body(self, body: bytes) -> None:
            if self.cycle is not None:
                super().on_body(body)

        def send_400_response(self, msg: str) -> None:
            self._refuse(Problem(Kind.BAD_REQUEST))

        def _close(self) -> None:
            """A producer that is still sending its request would see a reset, and not the answer that is under way, if
            the connection were closed under its hands: only our side is closed, and what still comes is discarded for
            as long as a body may take (RFC 9112, 9.6)."""
            unread = not self._in_head or self._head_bytes
            if not unread or self._only_discards or self._connection.is_closing():
                self._connection.close()
                return
            self._only_discards = True
            self._stop_waiting()
            self._deadline = self.loop.call_later(settings.body_seconds, self._connection.close)
            self._connection.write_eof()
            self.flow.resume_reading()

        def _await_rest(self) -> None:
            """Of the head, or, once that is there, of the body. What came in one piece needs no timer."""
            seconds = settings.header_seconds if self._in_head else settings.body_seconds
            self._deadline = self.loop.call_later(seconds, self._late)

        def _stop_waiting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _late(self) -> None:
            self._deadline = None
            if self.transport.is_closing():
                return
            if self._in_head:
                self._refuse(
                    Problem(Kind.TIMEOUT, f"the headers were not complete after {settings.header_seconds:g} s")
                )
            elif self.pipeline:
                self._await_rest()  # nothing is read before the requests before it have their answers
            elif self.cycle.response_complete:
                self.transport.close()
            else:
                self.cycle.scope[LATE] = True  # type: ignore[typeddict-unknown-key]
                self.cycle.message_event.set()

        def _refuse(self, problem: Problem) -> None:
            """Answer without an application, and close. A request before this one has its answer first."""
            cycle = self.cycle
            if cycle is not None and not cycle.response_complete:
                if not cycle.more_body:
                    cycle.keep_alive = False
                    self.flow.pause_reading()
                    return
                cycle.disconnected = True
                cycle.message_event.set()
            body = problem.body()
            head = f"HTTP/1.1 {problem.kind.status} {problem.kind.value.title}\r\n".encode("ascii")
            lines = (
                b"content-type: " + CONTENT_TYPE,
                b"content-length: " + str(len(body)).encode(),
                b"connection: close",
            )
            self.transport.write(head + b"\r\n".join(lines) + b"\r\n\r\n" + body)
            self.transport.close()

    return Limited
