"""From a request to its answer: proven, within limits, not a repeat, in Kafka. Then, and only then, 202."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from uuid import uuid4

import orjson
import structlog

from ingestcore.messages.events import Event
from ingestcore.messages.moments import iso_utc
from ingestcore.observe.metrics import Metrics
from ingestcore.stage import OperatorNeeded, Retriable
from ingestcore.stores.idempotency import PREFIX, Claims
from ingestcore.stores.quick_redis import RedisAway
from ingestcore.stores.token_bucket import SharedBuckets
from services.webhook_gateway import challenge, cloud_events, payload, signatures
from services.webhook_gateway.encoding import decoded
from services.webhook_gateway.media import Media, media_of
from services.webhook_gateway.problems import Kind, Problem
from services.webhook_gateway.settings import GatewaySettings
from services.webhook_gateway.signatures import Cause
from services.webhook_gateway.sources import Source, Sources
from services.webhook_gateway.stage import Identity, identify, type_of

log = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 0.05
"""How often a claim of another replica is looked at."""
_UNPROVEN: Final = ((b"www-authenticate", b'Bearer realm="webhooks", Basic realm="webhooks"'),)


class Delivering(Protocol):
    """What the intake needs of `kafka.deliveries`."""

    def send(self, value: bytes, key: bytes, headers: dict[str, str | bytes | None]) -> asyncio.Future[None]: ...


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


@dataclass(frozen=True, slots=True)
class Stored:
    """duplicate: it was there before this post."""

    event_id: str
    duplicate: bool


_REPLAYED: Final = ((b"idempotent-replayed", b"true"),)


class Intake:
    """Of one process; on the loop's thread. now: seconds since 1970."""

    def __init__(
        self,
        sources: Sources,
        settings: GatewaySettings,
        metrics: Metrics,
        deliveries: Delivering,
        claims: Claims,
        buckets: SharedBuckets,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._sources, self._settings, self._metrics = sources, settings, metrics
        self._deliveries, self._claims, self._buckets, self._now = deliveries, claims, buckets, now
        self._ours: dict[str, tuple[str, asyncio.Future[str | Problem]]] = {}
        self._ends: set[asyncio.Task[None]] = set()
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
        made = self._event(source, media, event, text, post)
        await self._take_tokens(source, 1)
        with self._counted(1, len(text)):
            stored = await self._store(source, *made)
        if stored.duplicate:
            return Answer(202, _told(stored), _REPLAYED)
        return Answer(202, _told(stored))

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

    @contextlib.contextmanager
    def _counted(self, events: int, nbytes: int) -> Any:
        settings = self._settings
        if (
            self.in_flight + events > settings.max_in_flight
            or self.in_flight_bytes + nbytes > settings.max_in_flight_bytes
        ):
            raise Problem(Kind.BUSY, retry_after=1)
        self.in_flight += events
        self.in_flight_bytes += nbytes
        try:
            yield
        finally:
            self.in_flight -= events
            self.in_flight_bytes -= nbytes

    # -- batches

    async def _many(self, source: Source, items: Sequence[bytes], media: Media, post: Post) -> Answer:
        await self._take_tokens(source, len(items))
        with self._counted(len(items), sum(map(len, items))):
            told = await asyncio.gather(
                *(self._item(source, media, item, number, post) for number, item in enumerate(items, 1))
            )
        stored = sum(isinstance(one, Stored) for one in told)
        listed = [_of_item(number, one) for number, one in enumerate(told, 1)]
        body = orjson.dumps({"accepted": stored, "refused": len(told) - stored, "items": listed})
        if stored == len(told):
            return Answer(202, body)
        problems = [one for one in told if isinstance(one, Problem)]
        if not stored and all(problem.kind.value.retry for problem in problems):
            raise problems[0]
        return Answer(207, body)

    async def _item(self, source: Source, media: Media, item: bytes, number: int, post: Post) -> Stored | Problem:
        try:
            if len(item) > self._settings.max_body_bytes:
                raise Problem(Kind.TOO_LARGE, f"the event has {len(item)} bytes")
            event = payload.read_object(item, self._settings.max_depth)
            return await self._store(source, *self._event(source, media, event, item, post, number))
        except Problem as problem:
            return problem

    # -- the event

    def _event(
        self, source: Source, media: Media, event: dict[str, Any], text: bytes, post: Post, item: int = 0
    ) -> tuple[Event, Identity]:
        headers, scheme = post.headers, source.http.auth.scheme
        cloud = None
        if media in (Media.CLOUD_EVENT, Media.CLOUD_EVENTS):
            cloud = cloud_events.of_envelope(event)
        elif not item and cloud_events.is_binary(headers):
            cloud = cloud_events.of_headers(headers)
        identity = identify(source.tenant, source.name, scheme, headers, event, text, cloud, item)
        received = iso_utc(datetime.fromtimestamp(self._now(), UTC))
        made = Event(
            id=identity.event_id,
            source=cloud.source if cloud else f"/v1/webhooks/{source.name}",
            type=cloud.type if cloud else type_of(scheme, headers, event),
            body=text,
            object=source.day(received),
            received=received,
            time=cloud.time if cloud else "",
            content_type=cloud.content_type if cloud else "application/json",
            attributes=cloud.more if cloud else {},
            idempotency=identity.identity,
            client=post.client,
            item=item,
            traceparent=_traceparent(headers),
        )
        return made, identity

    # -- claim, ack, done

    async def _store(self, source: Source, event: Event, identity: Identity) -> Stored:
        """Raises Problem."""
        if not source.http.idempotency.enabled:
            await self._deliver(event)
            return Stored(event.id, False)
        keys = tuple(f"{PREFIX}{source.name}:{claim}" for claim in identity.claims)
        deadline = time.monotonic() + self._settings.wait_seconds
        ours = next((self._ours[key] for key in keys if key in self._ours), None)
        if ours is not None:
            return await self._same(ours, identity, deadline)
        mine: asyncio.Future[str | Problem] = asyncio.get_running_loop().create_future()
        for key in keys:
            self._ours[key] = identity.fingerprint, mine
        try:
            return await self._claimed_store(source, event, identity, keys, mine, deadline)
        except BaseException as error:
            self._let_go(keys, mine, error if isinstance(error, Problem) else Problem(Kind.INTERNAL))
            raise

    async def _same(
        self, ours: tuple[str, asyncio.Future[str | Problem]], identity: Identity, deadline: float
    ) -> Stored:
        """The same event is on its way in this process: its answer is ours. Raises Problem."""
        fingerprint, future = ours
        _same_body(fingerprint, identity)
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                became = await asyncio.shield(future)
        except TimeoutError:
            raise Problem(Kind.IN_FLIGHT, retry_after=self._settings.retry_after_seconds) from None
        if isinstance(became, Problem):
            raise Problem(became.kind, became.detail, became.retry_after, cause=became.cause)
        return Stored(became, True)

    async def _claimed_store(
        self,
        source: Source,
        event: Event,
        identity: Identity,
        keys: tuple[str, ...],
        mine: asyncio.Future[str | Problem],
        deadline: float,
    ) -> Stored:
        owner, claimed = uuid4().hex, False
        try:
            while True:
                held = await self._claims.claim(keys, identity.fingerprint, owner)
                if held is None:
                    claimed = True
                    break
                _same_body(held.fingerprint, identity)
                if held.is_done:
                    self._let_go(keys, mine, held.event_id)
                    return Stored(held.event_id, True)
                if time.monotonic() > deadline:
                    raise Problem(Kind.IN_FLIGHT, retry_after=self._settings.retry_after_seconds)
                await asyncio.sleep(_LOOK_SECONDS)
        except RedisAway:
            pass  # taken all the same: the normalizer drops repeats exactly
        try:
            await self._deliver(event)
        except Problem:
            if claimed:
                with contextlib.suppress(RedisAway):
                    await self._claims.release(keys, identity.fingerprint, owner)
            raise
        # The answer does not wait for Redis; whoever posts the same meanwhile waits for this process, or for its claim.
        task = asyncio.get_running_loop().create_task(self._remember(source, event.id, identity, keys, mine))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)
        return Stored(event.id, False)

    async def _remember(
        self,
        source: Source,
        event_id: str,
        identity: Identity,
        keys: tuple[str, ...],
        mine: asyncio.Future[str | Problem],
    ) -> None:
        try:
            with contextlib.suppress(RedisAway):
                await self._claims.done(keys, identity.fingerprint, event_id, source.http.idempotency.ttl)
        finally:
            self._let_go(keys, mine, event_id)

    def _let_go(self, keys: Sequence[str], mine: asyncio.Future[str | Problem], became: str | Problem) -> None:
        for key in keys:
            if key in self._ours and self._ours[key][1] is mine:
                del self._ours[key]
        if not mine.done():
            mine.set_result(became)

    async def _deliver(self, event: Event) -> None:
        try:
            headers: dict[str, str | bytes | None] = {**event.headers()}
        except ValueError as error:
            raise Problem(Kind.BAD_KEY, str(error)) from None
        began = time.monotonic()
        try:
            await self._deliveries.send(event.body, event.key(), headers)
        except (Retriable, OperatorNeeded) as error:
            raise Problem(Kind.STORE_AWAY, retry_after=self._settings.retry_after_seconds, cause=str(error)) from None
        self._metrics.observe("ingest_webhook_ack_seconds", time.monotonic() - began, source=event.object.source)

    async def finish(self) -> None:
        """Wait until all that was answered is remembered."""
        while self._ends:
            await asyncio.wait(set(self._ends))
        await self._claims.finish()


def _same_body(fingerprint: str, identity: Identity) -> None:
    if fingerprint != identity.fingerprint:
        raise Problem(Kind.KEY_REUSED)


def _told(stored: Stored) -> bytes:
    return orjson.dumps({"event_id": stored.event_id, "duplicate": stored.duplicate})


def _of_item(number: int, one: Stored | Problem) -> dict[str, Any]:
    if isinstance(one, Problem):
        return one.document(item=number)
    return {"item": number, "status": 202, "event_id": one.event_id, "duplicate": one.duplicate}


def _traceparent(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(b"traceparent", b"")
    return given.decode("ascii") if len(given) == 55 and given.isascii() and b"\n" not in given else ""
