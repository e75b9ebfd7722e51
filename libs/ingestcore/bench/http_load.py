"""Load for an HTTP server, cheap enough that the server is what is measured: requests are made before, an answer is
looked at no more than it must be. Its CPU is this process's, never the server's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

_LENGTH: Final = b"content-length: "
_HEAD_END: Final = b"\r\n\r\n"


@dataclass
class Load:
    """Requests to one port of this machine, over connections that are kept.

    connections  requests on their way at once
    rate         requests a second; a latency then counts from when the request was due. None: as fast as answers come
    accepted     called with the number of each request that got 202, as its answer comes
    """

    port: int
    requests: Sequence[bytes]
    connections: int
    rate: int | None = None
    accepted: Callable[[int], None] | None = None
    seconds: list[float] = field(default_factory=list)
    """Of each request, in the order of answers."""

    async def run(self) -> None:
        """Raises RuntimeError: an answer is not 202, or a connection broke."""
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left: Iterator[tuple[int, bytes]] = iter(enumerate(self.requests))
        loop = asyncio.get_running_loop()
        opened = [
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.port)
            for _ in range(min(self.connections, len(self.requests)))
        ]
        self._began = time.monotonic()
        for _, connection in opened:
            self.next(connection)
        try:
            await self._done
        finally:
            for transport, _ in opened:
                transport.abort()

    def next(self, connection: _Connection) -> None:
        """Send the next request, when it is due."""
        found = next(self._left, None)
        if found is None:
            return
        number, request = found
        if self.rate is None:
            connection.send(number, request, time.monotonic())
            return
        due = self._began + number / self.rate
        wait = due - time.monotonic()
        if wait <= 0:
            connection.send(number, request, due)
        else:
            asyncio.get_running_loop().call_later(wait, connection.send, number, request, due)

    def answered(self, connection: _Connection, seconds: float) -> None:
        self.seconds.append(seconds)
        if self.accepted is not None:
            self.accepted(connection.number)
        if len(self.seconds) == len(self.requests):
            self._done.set_result(None)
        else:
            self.next(connection)

    def failed(self, what: str) -> None:
        if not self._done.done():
            self._done.set_exception(RuntimeError(what))


class _Connection(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self._load, self._got, self.number, self._due = load, b"", 0, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, number: int, request: bytes, due: float) -> None:
        self.number, self._due = number, due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, body = self._got.partition(_HEAD_END)
        if not found or len(body) < int(head.partition(_LENGTH)[2].partition(b"\r")[0]):
            return
        if not head.startswith(b"HTTP/1.1 202 "):
            self._load.failed(f"a post failed: {self._got.decode(errors='replace')}")
            return
        self._got = b""
        self._load.answered(self, time.monotonic() - self._due)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.failed(f"the server closed a connection ({exc})")
