"""`ingest.events`: one event as its producer sent it. The value is the producer's body, every byte of it.

CloudEvents 1.0 attributes ride in headers, as its Kafka binding says (binary mode): `ce_id`, `ce_source`, `ce_type`,
`ce_specversion`, `content-type`, and what else the producer gave. Beside them stand the platform's own: whose event it
is (`object`, `dataset`, `sources`), when it was received (`first_seen`), and facts of the request.

What an object is for rows of files is one day of a source for events: the ledger's subject, and what `_object` names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from ingestcore.messages.objects import ObjectFacts, object_id
from ingestcore.topics import FORMAT

SPEC_VERSION: Final = "1.0"
"""Of CloudEvents."""
URI_SCHEME: Final = "webhook://"
"""Begins the URI of a day of a source: `webhook://shop/2026-01-02`."""
ENDPOINT: Final = "/v1/webhooks/{source}"
"""Path of the HTTP endpoint that takes a source's events."""
JSON: Final = "application/json"
STRUCTURED: Final = "application/cloudevents+json"
"""Content type of a body that is a whole CloudEvent: the event is its `data`."""

_ATTRIBUTE = re.compile(r"[a-z0-9]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
_DAY = re.compile(URI_SCHEME + r"[^/]+/\d{4}-\d\d-\d\d")
_NAMED: Final = ("specversion", "id", "source", "type", "time")


def day_of(*, tenant: str, source: str, dataset: str, received: str, provenance: Mapping[str, str]) -> ObjectFacts:
    """-> whose rows the events are that a source took in on one day: the same for each of them.

    dataset   `name@version`, chosen by who writes the event and never again
    received  ISO 8601, UTC; its day is what counts
    """
    day, table = received[:10], dataset.rpartition("@")[0]
    return ObjectFacts(
        id=object_id(tenant, source, table, URI_SCHEME, day, ""),
        tenant=tenant,
        source=source,
        dataset=dataset,
        uri=f"{URI_SCHEME}{source}/{day}",
        etag="",
        first_seen=f"{day}T00:00:00Z",
        provenance=dict(provenance),
    )


def day_begins_ms(uri: str) -> int:
    """URI of a day of a source -> its first moment, milliseconds since 1970. Raises ValueError: it is none."""
    return int(datetime.fromisoformat(uri.rpartition("/")[2]).replace(tzinfo=UTC).timestamp() * 1000)


def day_headers(object: ObjectFacts) -> dict[str, str]:
    """-> headers that all events of a day of a source have."""
    return {
        "ce_specversion": SPEC_VERSION,
        "format": str(FORMAT),
        "rows": "1",
        "sources": object.source,
        "dataset": object.dataset,
        "object": object.encode(),
    }


def request_headers(received: str, client: str = "", traceparent: str = "") -> dict[str, str]:
    """-> headers that all events of one request have; of the arguments see Event. Raises ValueError."""
    problem = _unprintable(client + traceparent)
    if problem:
        raise ValueError(problem)
    headers = {"first_seen": received}
    if client:
        headers["client"] = client
    if traceparent:
        headers["traceparent"] = traceparent
    return headers


def event_headers(
    *,
    id: str,
    source: str,
    type: str,
    time: str = "",
    content_type: str = JSON,
    attributes: Mapping[str, str] | None = None,
    entity: str = "",
    idempotency: str = "",
    item: int = 0,
) -> dict[str, str]:
    """-> headers that are an event's own; of the arguments see Event. Raises ValueError: a reader would refuse them."""
    problem = _unprintable(f"{id}{source}{type}{time}{content_type}{entity}{idempotency}")
    if problem or not (id and source and type):
        raise ValueError(problem or "an event needs `ce_id`, `ce_source` and `ce_type`")
    headers = {"ce_id": id, "ce_source": source, "ce_type": type, "content-type": content_type}
    if time:
        headers["ce_time"] = time
    if entity:
        headers["entity"] = entity
    if idempotency:
        headers["idempotency"] = idempotency
    if item:
        headers["item"] = str(item)
    for name, text in (attributes or {}).items():
        problem = _attribute_problem(name, text)
        if problem:
            raise ValueError(problem)
        headers[f"ce_{name}"] = text
    return headers


def record_key(id: str, entity: str = "") -> bytes:
    """-> key of an event's record: events of one thing stay in order."""
    return (entity or id).encode()


def _unprintable(text: str) -> str:
    """-> why it can't stand in a header; "": it can."""
    found = None if text.isprintable() else _CONTROL.search(text)  # nearly all is printable, and that is told faster
    if not found:
        return ""
    return f"a header of an event holds {found[0]!r}: control characters and lone surrogates can't stand there"


def _attribute_problem(name: str, text: str) -> str:
    if not _ATTRIBUTE.fullmatch(name) or name in _NAMED:
        return f"{name[:64]!r} is no name of a further CloudEvents attribute: lower-case letters and digits"
    return _unprintable(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event.

    id           CloudEvents `id`: the producer's, or one made for it
    source       CloudEvents `source`, a URI reference: id and source name the event
    type         CloudEvents `type`
    body         the producer's bytes, untouched
    object       whose it is, see `day_of`; `object.source` is the source's name in the configuration
    received     ISO 8601, UTC: when it was taken in; `ingestedAt` of its row
    time         CloudEvents `time`, RFC 3339: when it happened; ""  where nobody said
    attributes   further CloudEvents attributes (`subject`, `dataschema`, extensions) by name, lower case and digits
    entity       value that the source names as record key, so that events of one thing stay in order; "": the id
    idempotency  what makes two deliveries the same event, where that is not source and id
    client       address of the producer, as text
    item         number of the event in its batch, from 1; 0: it came alone
    traceparent  W3C Trace Context of the request
    """

    id: str
    source: str
    type: str
    body: bytes
    object: ObjectFacts
    received: str
    time: str = ""
    content_type: str = JSON
    attributes: Mapping[str, str] = field(default_factory=dict)
    entity: str = ""
    idempotency: str = ""
    client: str = ""
    item: int = 0
    traceparent: str = ""

    @property
    def identity(self) -> str:
        """Equal for deliveries of one event, within a tenant, dataset and source. Neither part holds a line end."""
        return self.idempotency or f"{self.source}\n{self.id}"

    def key(self) -> bytes:
        """-> record key."""
        return record_key(self.id, self.entity)

    def headers(self) -> dict[str, str]:
        """Raises ValueError: what would be no event to a reader."""
        problem = self.problem()
        if problem:
            raise ValueError(problem)
        own = event_headers(
            id=self.id,
            source=self.source,
            type=self.type,
            time=self.time,
            content_type=self.content_type,
            attributes=self.attributes,
            entity=self.entity,
            idempotency=self.idempotency,
            item=self.item,
        )
        return day_headers(self.object) | request_headers(self.received, self.client, self.traceparent) | own

    def problem(self) -> str:
        """-> why no event may be like this, in words for whoever wrote it; "": it may."""
        for name in ("id", "source", "type", "received"):
            if not getattr(self, name):
                return f"an event needs {'`ce_' + name + '`' if name != 'received' else '`first_seen`'}"
        if not _is_moment(self.received):
            return f"first_seen {self.received!r} is no moment like 2026-01-02T03:04:05.678Z"
        if not _DAY.fullmatch(self.object.uri) or not _is_moment(f"{self.object.uri[-10:]}T00:00:00Z"):
            return f"object {self.object.uri!r} is no day of a source like {URI_SCHEME}shop/2026-01-02"
        texts = (self.id, self.source, self.type, self.time, self.content_type, self.entity, self.idempotency)
        unprintable = _unprintable("".join((*texts, self.client, self.traceparent)))
        if unprintable:
            return unprintable
        problems = (_attribute_problem(name, text) for name, text in self.attributes.items())
        return next(filter(None, problems), "")

    @classmethod
    def of(cls, value: bytes, headers: Mapping[str, str]) -> Event:
        """Raises ValueError: a header is missing or unreadable."""
        try:
            if headers["ce_specversion"] != SPEC_VERSION:
                raise ValueError(f"CloudEvents {headers['ce_specversion']!r} is not read, only {SPEC_VERSION}")
            further = {name[3:]: text for name, text in headers.items() if name.startswith("ce_")}
            event = cls(
                id=headers["ce_id"],
                source=headers["ce_source"],
                type=headers["ce_type"],
                body=value,
                object=ObjectFacts.decode(headers["object"]),
                received=headers["first_seen"],
                time=headers.get("ce_time", ""),
                content_type=headers.get("content-type", JSON),
                attributes={name: text for name, text in further.items() if name not in _NAMED},
                entity=headers.get("entity", ""),
                idempotency=headers.get("idempotency", ""),
                client=headers.get("client", ""),
                item=int(headers.get("item", "0")),
                traceparent=headers.get("traceparent", ""),
            )
        except KeyError as error:
            raise ValueError(f"not the headers of an event: {error} is missing") from error
        problem = event.problem()
        if problem:
            raise ValueError(f"not the headers of an event: {problem}")
        return event


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return _MOMENT.fullmatch(text) is not None
