"""What a post brings: each event with its identity and as a record for Kafka. Pure: the moment is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ingestcore.kafka.deliveries import Record
from ingestcore.messages.events import JSON, event_headers, record_key, request_headers
from ingestcore.stores.idempotency import PREFIX
from services.webhook_gateway import cloud_events
from services.webhook_gateway.media import Media
from services.webhook_gateway.problems import Kind, Problem
from services.webhook_gateway.sources import Source
from services.webhook_gateway.stage import Identity, Names, type_in_headers, type_of


class Arrival(NamedTuple):
    """An event that is proven and read."""

    identity: Identity
    record: Record


class Arrivals:
    """Those of one post: what they have in common is made once."""

    def __init__(
        self, source: Source, media: Media, headers: Mapping[bytes, bytes], client: str, received: str
    ) -> None:
        """received: ISO 8601, UTC. Raises Problem."""
        self._headers = headers
        scheme = source.http.auth.scheme
        self._names = Names(source.tenant, source.name, scheme, headers, f"{PREFIX}{source.name}:")
        self._type = type_in_headers(scheme, headers)
        self._place = f"/v1/webhooks/{source.name}"
        self._enveloped = media in (Media.CLOUD_EVENT, Media.CLOUD_EVENTS)
        self._binary = cloud_events.is_binary(headers)
        try:
            own = request_headers(received, client, _traceparent(headers))
        except ValueError as error:
            raise Problem(Kind.BAD_KEY, str(error)) from None
        self._common = {**source.headers(received), **own}

    def read(self, event: Mapping[str, Any], body: bytes, item: int = 0) -> Arrival:
        """event, body  decoded and as bytes
        item         number in its batch, from 1; 0: it came alone
        Raises Problem.
        """
        cloud = None
        if self._enveloped:
            cloud = cloud_events.of_envelope(event)
        elif self._binary and not item:
            cloud = cloud_events.of_headers(self._headers)
        identity = self._names.of(event, body, cloud, item)
        try:
            own = event_headers(
                id=identity.event_id,
                source=cloud.source if cloud else self._place,
                type=cloud.type if cloud else self._type or type_of(event),
                time=cloud.time if cloud else "",
                content_type=cloud.content_type if cloud else JSON,
                attributes=cloud.more if cloud else None,
                idempotency=identity.identity,
                item=item,
            )
        except ValueError as error:
            raise Problem(Kind.BAD_KEY, str(error)) from None
        return Arrival(identity, Record(body, record_key(identity.event_id), {**self._common, **own}))


def _traceparent(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(b"traceparent", b"")
    return given.decode("ascii") if len(given) == 55 and given.isascii() and b"\n" not in given else ""
