"""Rows of events: from a row back to the event that was accepted, and from an event forward to its row.

A row of an event carries the event's offset in `events`, its day and the SHA-256 of its body: together they say which
of the records at that offset it was made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from ingestcore.datasets.registry import NotSeenYet
from ingestcore.kafka import admin
from ingestcore.messages.events import URI_SCHEME, Event
from ingestcore.messages.rows import HASH, KEY, read
from ingestcore.stage import Input
from ingestcore.trace import forward, letters
from ingestcore.trace.places import rows_of_key, rows_of_object
from ingestcore.trace.reads import Reads, Subject
from ingestcore.trace.story import Accepted, Fate, Hash, Raw, Story, Where
from ingestcore.trace.tables import find_tables
from ingestcore.trace.trail import Trail

Conclude = Callable[[Subject], tuple[Fate, str]]


def is_of_event(uri: str) -> bool:
    return uri.startswith(URI_SCHEME)


def named(reads: Reads, id: str, source: str = "", since_ms: int = 0) -> Iterator[Input]:
    """-> the records of events with this id, each delivery one. source: "": of any. Raises Retriable."""
    for input in reads.since("events", since_ms) if since_ms else reads.all_of("events"):
        if input.headers.get("ce_id") == id and source in ("", input.headers.get("sources")):
            yield input


def record_of(reads: Reads, object_id: str, offset: int, content_hash: str) -> Input | None:
    """-> the event a row was made of; None: retention has removed it. Raises Retriable."""
    spots = [(partition, offset) for topic, partition in reads.bounds if topic == "events"]
    for input in reads.picked("events", spots):
        mine = content_hash in ("", hashlib.sha256(input.value).hexdigest())
        if mine and Event.of(input.value, input.headers).object.id == object_id:
            return input
    return None


def of_event(reads: Reads, input: Input, conclude: Conclude, *, fresh: bool) -> Story:
    """-> all that can be found out about an event. fresh: it was just posted, so that retention has removed nothing of
    it. Raises Retriable, Refused; ValueError: the record is no event."""
    event = Event.of(input.value, input.headers)
    digest = hashlib.sha256(input.value).hexdigest()
    at = _subject(reads, event.object.id, event.object.uri, input.at.offset, event.object.dataset)
    story = at.story
    story.source, story.tenant = event.object.source, event.object.tenant
    story.event = Accepted(event.id, event.type, event.received, event.client, input.at.partition, input.at.offset)
    story.moments["accepted"] = input.timestamp_ms
    story.raw = Raw(0, len(input.value), input.value, f"events[{input.at.partition}]@{input.at.offset}")
    story.hash = Hash(None, "", digest)
    _forward(reads, at, digest, input.timestamp_ms, fresh=fresh)
    return _told(at, conclude)


def of_row(reads: Reads, object_id: str, uri: str, offset: int, content_hash: str, conclude: Conclude) -> Story:
    """-> of a row whose event retention has removed. Raises Retriable."""
    at = _subject(reads, object_id, uri, offset, "")
    at.story.note("retention has removed the event from the topic events")
    _forward(reads, at, content_hash, 0, fresh=False)
    return _told(at, conclude)


def _subject(reads: Reads, object_id: str, uri: str, offset: int, dataset: str) -> Subject:
    at = Subject(Trail(object_id, uri), offset, Story(uri, offset, object_id, dataset))
    _know(reads, at, dataset)
    return at


def _know(reads: Reads, at: Subject, dataset: str) -> None:
    at.story.dataset = dataset
    try:
        at.spec = reads.specs.dataset(dataset)
    except NotSeenYet:
        if dataset:
            at.story.note(f"{dataset} is not in the configuration topic")


def _forward(reads: Reads, at: Subject, content_hash: str, since_ms: int, *, fresh: bool) -> None:
    _find_typed(reads, at, content_hash, since_ms)
    letters.find(reads, at, since_ms, lake=not fresh)
    _find_published(reads, at, since_ms)
    forward.find_files(reads, at)
    find_tables(reads, at)


def _find_typed(reads: Reads, at: Subject, content_hash: str, since_ms: int) -> None:
    for input in reads.since("typed", since_ms):
        batch = read(input.value)
        for index in rows_of_object(batch, at.trail.id, at.number):
            recorded = batch.column(HASH)[index].as_py()
            if content_hash not in ("", recorded):
                continue
            if at.spec is None:
                _know(reads, at, input.headers.get("dataset", ""))
            at.key, at.partition = batch.column(KEY)[index].as_py(), input.at.partition
            at.story.key = at.key.hex()
            at.story.typed.append(Where("typed", input.at.partition, input.at.offset, index))
            at.story.moments.setdefault("parsed", input.timestamp_ms)
            if at.story.hash is not None:
                at.story.hash = replace(at.story.hash, recorded=recorded)
            at.learn_entity(batch, index)


def _find_published(reads: Reads, at: Subject, since_ms: int) -> None:
    """What is later than the event; an earlier row stands in its place only once the normalizer is past it."""
    if at.partition is None:
        return
    for input in reads.since("normalized", since_ms, at.partition):
        batch = read(input.value)
        for index in rows_of_key(batch, at.key):
            forward.take_same_key(at, input, batch, index)
    if at.published is None and _is_past(reads, at.partition, at.story.typed[0].offset):
        at.story.first = None
        forward.find_published(reads, at)
    if at.published is not None:
        at.story.first = None


def _is_past(reads: Reads, partition: int, offset: int) -> bool:
    """Whether the normalizer is done with a typed message."""
    group, name = reads.platform.group("normalizer"), reads.topics["typed"].name
    return admin.committed(admin.open_admin(reads.platform), group).get((name, partition), 0) > offset


def _told(at: Subject, conclude: Conclude) -> Story:
    at.story.fate, at.story.why = conclude(at)
    if at.story.event is not None and at.story.fate is Fate.UNKNOWN:
        at.story.fate, at.story.why = Fate.IN_PROGRESS, "the event-parser has not taken it yet"
    return at.story
