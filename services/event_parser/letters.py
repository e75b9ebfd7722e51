"""Bad events -> dead letters: one each, with the producer's bytes and all that its headers said."""

from __future__ import annotations

import hashlib
from typing import Final

import orjson

from ingestcore.datasets.names import DEFAULT_TENANT
from ingestcore.messages.events import Event
from ingestcore.reasons import Reason
from ingestcore.stage import Input, Origin, Reject
from ingestcore.tabular.events import BadEvent
from ingestcore.tabular.texts import shown

_OURS: Final = frozenset({"format", "rows", "object", "dataset", "sources", "first_seen", "traceparent"})
"""Headers a letter carries anyway."""


def letter_of(bad: BadEvent, event: Event, input: Input) -> Reject:
    """-> the reject of one event.

    Facts: `event`: the same for the same event and bytes, however often it is delivered; `event_id`, `event_source`,
    `event_type`; `fault`, or `column` and `value`; `headers`: the rest of the event's headers as JSON.
    """
    facts = {
        "event": _name(event),
        "event_id": shown(event.id.encode()),
        "event_source": shown(event.source.encode()),
        "event_type": shown(event.type.encode()),
        "headers": orjson.dumps({n: t for n, t in input.headers.items() if n not in _OURS}).decode(),
    }
    named = {"fault": bad.fault, "column": bad.column, "value": bad.value if bad.column else ""}
    return Reject(
        at=input.at,
        origin=Origin.of(event.object),
        raw=input.value,
        reason=bad.reason,
        message=f"event {facts['event_id']} of {event.object.source}: {bad.message}",
        object=event.object,
        facts=facts | {name: text for name, text in named.items() if text},
        reentry="events",
    )


def stranger(input: Input, why: str) -> Reject:
    """-> the reject of a message that is no event: whose it is nobody can say."""
    place = f"{input.at.topic}/{input.at.partition}/{input.at.offset}"
    return Reject(
        at=input.at,
        origin=Origin(place, DEFAULT_TENANT, "", input.headers.get("dataset", ""), ""),
        raw=input.value,
        reason=Reason.VALIDATION_FAIL,
        message=f"{why}: whoever writes to the topic must send what schemas/event.schema.json says",
        facts={"fault": "headers", "headers": orjson.dumps(dict(input.headers)).decode()},
        reentry="events",
    )


def _name(event: Event) -> str:
    """-> 32 hex digits."""
    digest = hashlib.sha256(hashlib.sha256(event.body).digest())
    digest.update(event.identity.encode())
    return digest.hexdigest()[:32]
