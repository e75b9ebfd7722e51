"""From a request to its answer: proven, within limits, stored. Then, and only then, 202."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import orjson
import structlog

from ingestcore.messages.moments import iso_utc
from ingestcore.observe.metrics import Metrics
from ingestcore.stores.token_bucket import SharedBuckets
from services.webhook_gateway import challenge, payload, signatures
from services.webhook_gateway.arrival import Arrival, Arrivals
from services.webhook_gateway.encoding import decoded
from services.webhook_gateway.media import Media, media_of
from services.webhook_gateway.once import Once, Outcome, Stored
from services.webhook_gateway.problems import Kind, Problem
from services.webhook_gateway.settings import GatewaySettings
from services.webhook_gateway.signatures import Cause
from services.webhook_gateway.sources import Source, Sources

log = structlog.get_logger(__name__)

_UNPROVEN: Final = ((b"www-authenticate", b'Bearer realm="webhooks", Basic realm="webhooks"'),)


@dataclass(frozen=True, slots=True)
class Post:
    """headers: by lower-case name; body: as sent; limit: bytes it may have, also decompressed; client: its address."""

    source: str
    headers: Mapping[bytes, bytes]
    body: bytes
    limit: int
    client: str


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()
    content_type: bytes = b"application/json"


_REPLAYED: Final = ((b"idempotent-replayed", b"true"),)


class Intake:
    """Of one process; on the loop's thread. now: seconds since 1970."""

    def __init__(
        self,
        sources: Sources,
        settings: GatewaySettings,
        metrics: Metrics,
        once: Once,
        buckets: SharedBuckets,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._sources, self._settings, self._metrics = sources, settings, metrics
        self._once, self._buckets, self._now = once, buckets, now
        self.in_flight = 0
        self.in_flight_bytes = 0
        self.draining = False

    # -- one event

    async def one(self, post: Post) -> Answer:
        """Raises Problem."""
        source, media, text = self._admit(post)
        if media is Media.CLOUD_EVENTS:
            return await self._many(source, payload.items_of_array(text, self._settings.max_batch_items), media, post)
        if media is Media.LINES:
            raise Problem(Kind.MEDIA_TYPE, "NDJSON is a batch: POST it to .../batch")
        event = payload.read_object(text, self._settings.max_depth)
        handshake = challenge.of_body(source.http.challenge, event)
        if handshake is not None:
            return Answer(200, handshake[1], content_type=handshake[0])
        arrival = self._arrivals(source, media, post).read(event, text)
        await self._take_tokens(source, 1)
        self._enters(1, len(text))
        try:
            (became,) = await self._once.store(source, [arrival])
        finally:
            self._leaves(1, len(text))
        if isinstance(became, Problem):
            raise became
        body = orjson.dumps({"event_id": became.event_id, "duplicate": became.duplicate})
        return Answer(202, body, _REPLAYED if became.duplicate else ())

    async def batch(self, post: Post) -> Answer:
        """Raises Problem."""
        source, media, text = self._admit(post)
        split = payload.items_of_lines if media is Media.LINES else payload.items_of_array
        return await self._many(source, split(text, self._settings.max_batch_items), media, post)

    def willing(self, source: str, query: bytes) -> Answer:
        """A handshake by GET. Raises Problem."""
        found = self._sources.find(source)
        answer = challenge.of_query(found.http.challenge if found else None, query)
        if answer is None:
            raise Problem(Kind.METHOD, headers=((b"allow", b"POST"),))
        return Answer(200, answer[1], content_type=answer[0])

    # -- admission

    def _admit(self, post: Post) -> tuple[Source, Media, bytes]:
        """-> whose it is, what it announces, and its body decompressed. Nothing that is asked before the proof depends
        on the source. Raises Problem."""
        if self.draining:
            raise Problem(Kind.DRAINING, retry_after=self._settings.retry_after_seconds)
        if not post.body:
            raise Problem(Kind.EMPTY_BODY)
        media = media_of(post.headers.get(b"content-type", b""))
        source = self._sources.find(post.source)
        if source is None:
            signatures.pretend(post.body)
            raise self._unproven("", Cause.UNKNOWN_SOURCE)
        if source.broken:
            raise Problem(Kind.NOT_READY, retry_after=self._settings.retry_after_seconds, cause=source.broken)
        cause = source.check(post.headers, post.body, self._now())
        if cause is not None:
            raise self._unproven(source.name, cause)
        encoding = post.headers.get(b"content-encoding")
        if encoding is None:
            return source, media, post.body
        text = decoded(post.body, encoding, max_bytes=post.limit, max_ratio=self._settings.max_ratio)
        return source, media, text

    def _unproven(self, source: str, cause: Cause) -> Problem:
        self._metrics.count("ingest_webhook_signature_failures_total", source=source or "unknown", cause=cause.value)
        return Problem(Kind.UNAUTHORIZED, headers=_UNPROVEN, cause=cause.value)

    async def _take_tokens(self, source: Source, cost: int) -> None:
        bucket = source.bucket
        if bucket is None:
            return
        if cost > bucket.burst:
            raise Problem(Kind.TOO_LARGE, f"{cost} events at once, {bucket.burst} are taken from this source")
        grant = await self._buckets.take(bucket, cost)
        if not grant.granted:
            wait = grant.wait_seconds(bucket, cost)
            seconds = max(1, int(wait + 0.999))
            raise Problem(
                Kind.RATE_LIMITED,
                f"{bucket.per_second:g} a second are taken, {bucket.burst} at once",
                retry_after=seconds,
                headers=(
                    (b"ratelimit-limit", str(bucket.burst).encode()),
                    (b"ratelimit-remaining", str(max(0, int(grant.left))).encode()),
                    (b"ratelimit-reset", str(seconds).encode()),
                ),
            )

    def _enters(self, events: int, nbytes: int) -> None:
        """Raises Problem: more are in flight than may be."""
        settings = self._settings
        if (
            self.in_flight + events > settings.max_in_flight
            or self.in_flight_bytes + nbytes > settings.max_in_flight_bytes
        ):
            raise Problem(Kind.BUSY, retry_after=1)
        self.in_flight += events
        self.in_flight_bytes += nbytes

    def _leaves(self, events: int, nbytes: int) -> None:
        self.in_flight -= events
        self.in_flight_bytes -= nbytes

    # -- batches

    async def _many(self, source: Source, items: Sequence[bytes], media: Media, post: Post) -> Answer:
        await self._take_tokens(source, len(items))
        nbytes = sum(map(len, items))
        self._enters(len(items), nbytes)
        try:
            told = await self._each(source, items, media, post)
        finally:
            self._leaves(len(items), nbytes)
        stored = sum(isinstance(one, Stored) for one in told)
        listed = [_of_item(number, one) for number, one in enumerate(told, 1)]
        body = orjson.dumps({"accepted": stored, "refused": len(told) - stored, "items": listed})
        if stored == len(told):
            return Answer(202, body)
        problems = [one for one in told if isinstance(one, Problem)]
        if not stored and all(problem.kind.value.retry for problem in problems):
            raise problems[0]
        return Answer(207, body)

    async def _each(self, source: Source, items: Sequence[bytes], media: Media, post: Post) -> Sequence[Outcome]:
        arrivals, settings = self._arrivals(source, media, post), self._settings
        read: list[Arrival | Problem] = []
        for number, item in enumerate(items, 1):
            try:
                if len(item) > settings.max_body_bytes:
                    raise Problem(Kind.TOO_LARGE, f"the event has {len(item)} bytes")
                read.append(arrivals.read(payload.read_object(item, settings.max_depth), item, number))
            except Problem as problem:
                read.append(problem)
        became = iter(await self._once.store(source, [one for one in read if not isinstance(one, Problem)]))
        return [one if isinstance(one, Problem) else next(became) for one in read]

    def _arrivals(self, source: Source, media: Media, post: Post) -> Arrivals:
        return Arrivals(source, media, post.headers, post.client, _moment(int(self._now() * 1000)))

    async def finish(self) -> None:
        """Wait until all that was answered is remembered."""
        await self._once.finish()


@lru_cache(maxsize=16)
def _moment(milliseconds: int) -> str:
    """Since 1970 -> ISO 8601. Many posts come in the same millisecond."""
    return iso_utc(datetime.fromtimestamp(milliseconds / 1000, UTC))


def _of_item(number: int, one: Outcome) -> dict[str, Any]:
    if isinstance(one, Problem):
        return one.document(item=number)
    return {"item": number, "status": 202, "event_id": one.event_id, "duplicate": one.duplicate}
