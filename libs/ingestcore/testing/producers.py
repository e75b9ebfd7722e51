"""Producers of webhooks, many at once: each post is signed, and posted again until it has an answer that is final."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, NamedTuple

from ingestcore.datasets.http_source import Auth
from ingestcore.datasets.webhook_signing import proof

_ANSWER_SECONDS: Final = 30.0
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 4.0
_MOST_DOUBLINGS: Final = 6
_PATIENCE_SECONDS: Final = 300.0
_AGAIN: Final = frozenset({0, 207, 408, 409, 429})
"""Answers below 500 after which the same post may succeed. 0: there was none; 207: some of a batch were taken."""


class Reply(NamedTuple):
    """status 0: the connection broke, or there was none. headers: by lower-case name."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


def as_http(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """-> a post as it goes over the wire. path: below /v1/webhooks/."""
    lines = [f"POST /v1/webhooks/{path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Client:
    """One connection to the gateway, kept while it holds, made anew for the next post where it broke."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """path: below /v1/webhooks/."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port)
                reader, writer = self._streams
                writer.write(as_http(path, body, headers))
                reply = await _read(reader)
        except (OSError, asyncio.IncompleteReadError):  # TimeoutError is an OSError
            self.close()
            return Reply(0)
        if reply.headers.get("connection") == "close":
            self.close()
        return reply

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _read(reader: asyncio.StreamReader) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    named = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in named}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Reply(int(head[0].split(" ", 2)[1]), body, headers)


@dataclass(frozen=True, slots=True)
class Post:
    """path: below /v1/webhooks/; auth: of its source; id: of the event or batch, the same whenever it is posted;
    items: events of the batch, 0: it is one event."""

    path: str
    auth: Auth
    id: str
    body: bytes
    items: int = 0

    @property
    def events(self) -> tuple[str, ...]:
        """-> ids of its events."""
        return tuple(f"{self.id}:{number}" for number in range(1, self.items + 1)) or (self.id,)

    def headers(self) -> dict[str, str]:
        """-> with a signature for now."""
        return {"Content-Type": "application/json", **proof(self.auth, self.body, id=self.id, now=time.time())}


@dataclass
class Told:
    """What producers heard. statuses: of all answers, 0: none came; accepted: 2xx by event id; duplicates: of these
    told to be repeats; final: answers that are neither 2xx nor worth a repeat, and posts that were given up."""

    statuses: Counter[int] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    final: list[tuple[str, Reply]] = field(default_factory=list)


class Producers:
    """A crowd in a thread of its own: `let_go` gives it posts to do, leaving the `with` block ends it.

    clients           that post side by side, in the order of the posts
    seed              of the pauses between two tries
    patience_seconds  with one post
    answered          called in that thread with each post and its last reply
    """

    def __init__(
        self,
        port: int,
        posts: Sequence[Post],
        *,
        clients: int,
        seed: int = 0,
        patience_seconds: float = _PATIENCE_SECONDS,
        answered: Callable[[Post, Reply], None] = lambda post, reply: None,
    ) -> None:
        self.told = Told()
        self._port, self._clients, self._draw = port, clients, random.Random(seed)
        self._patience_seconds, self._answered = patience_seconds, answered
        self._all, self._left = posts, iter(posts)
        self._let_go = 0
        self._loop = asyncio.new_event_loop()
        self._free = asyncio.Semaphore(0)
        self._thread = threading.Thread(target=self._loop.run_forever, name="producers", daemon=True)

    def __enter__(self) -> Producers:
        self._thread.start()
        self._running: concurrent.futures.Future[Any] = asyncio.run_coroutine_threadsafe(self._run(), self._loop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def let_go(self, count: int, over_seconds: float = 0.0) -> None:
        """So many posts more may be done: now, or spread over a time."""
        count = min(count, len(self._all) - self._let_go)
        self._let_go += count
        self._loop.call_soon_threadsafe(self._release, count, over_seconds)

    def finish(self, seconds: float = _PATIENCE_SECONDS) -> Told:
        """Do what is left and wait for it. Raises TimeoutError."""
        self.let_go(len(self._all))
        self._running.result(seconds)
        return self.told

    def _release(self, count: int, over_seconds: float) -> None:
        for number in range(count):
            self._loop.call_later(over_seconds * number / count, self._free.release)

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(self._left) for _ in range(min(self._clients, len(self._all)))))

    async def _client(self, left: Iterator[Post]) -> None:
        client = Client(self._port)
        try:
            for post in left:
                await self._free.acquire()
                await self._deliver(client, post)
        finally:
            client.close()

    async def _deliver(self, client: Client, post: Post) -> None:
        """As a careful producer does: again, with pauses, while that may help."""
        began = time.monotonic()
        for tried in range(1_000_000):
            reply = await client.post(post.path, post.body, post.headers())
            self.told.statuses[reply.status] += 1
            if 200 <= reply.status < 300:
                told = json.loads(reply.body)
                for taken in [one for one in told.get("items", [told]) if "event_id" in one]:
                    self.told.accepted[taken["event_id"]] += 1
                    self.told.duplicates += taken["duplicate"]
                if reply.status == 202:
                    break
            if not _worth_a_repeat(reply) or time.monotonic() - began > self._patience_seconds:
                self.told.final.append((post.id, reply))
                break
            await asyncio.sleep(self._pause(reply, tried))
        self._answered(post, reply)

    def _pause(self, reply: Reply, tried: int) -> float:
        asked = reply.headers.get("retry-after", "")
        least = float(asked) if asked.isdigit() else 0.0
        more = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(tried, _MOST_DOUBLINGS))
        return least + self._draw.uniform(0, more)


def _worth_a_repeat(reply: Reply) -> bool:
    return reply.status >= 500 or reply.status in _AGAIN
