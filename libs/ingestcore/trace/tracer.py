"""Follows one row: ledger -> block -> bytes -> typed -> normalized or dead letter -> lake. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from ingestcore.datasets.registry import NotSeenYet
from ingestcore.messages.rows import HASH, read
from ingestcore.stage import Fate as RowFate
from ingestcore.stage import Input
from ingestcore.trace import back, events, forward
from ingestcore.trace.places import object_of
from ingestcore.trace.reads import Reads, Subject
from ingestcore.trace.story import Fate, Story
from ingestcore.trace.tables import find_tables
from ingestcore.trace.trail import Trail

Fitting = Callable[[Input, pa.RecordBatch], Sequence[int]]
"""Places of the rows of a typed message that are meant."""


def trace(reads: Reads, trail: Trail, row: int) -> Story:
    """-> all that can be found out. Raises Retriable: Kafka or S3 is away; Refused: S3 refuses."""
    at = Subject(trail, row, Story(trail.uri, row, trail.id))
    origin = trail.origin
    if origin is not None:
        at.story.dataset, at.story.source, at.story.tenant = origin.dataset, origin.source, origin.tenant
    else:
        forward.find_in_lake_alone(reads, at)
    if trail.ref is not None:
        at.story.etag = trail.ref.etag
    try:
        at.spec = reads.specs.dataset(at.story.dataset)
    except NotSeenYet:
        if "@" in at.story.dataset:
            at.story.note(f"{at.story.dataset} is not in the configuration topic: its rows can't be read")
    back.find_block(reads, at)
    back.find_bytes(reads, at)
    back.judge(reads, at)
    forward.find_typed(reads, at)
    forward.find_published(reads, at)
    forward.find_letters(reads, at)
    forward.find_files(reads, at)
    find_tables(reads, at)
    at.story.fate, at.story.why = conclude(at)
    return at.story


def trace_event(reads: Reads, input: Input, *, fresh: bool = False) -> Story:
    """-> all that can be found out about an event, by its record in `events`. fresh: it was just posted. Raises
    Retriable, Refused; ValueError: it is no event."""
    return events.of_event(reads, input, conclude, fresh=fresh)


def trace_row_of_event(reads: Reads, meant: Meant) -> Story:
    """-> the same, by its row. Raises Retriable."""
    input = events.record_of(reads, meant.object_id, meant.row, meant.content_hash)
    if input is not None:
        return trace_event(reads, input)
    return events.of_row(reads, meant.object_id, meant.uri, meant.row, meant.content_hash, conclude)


def conclude(at: Subject) -> tuple[Fate, str]:
    """-> what became of the row, from what was found, and a word on it. Pure."""
    story = at.story
    if story.normalized:
        return Fate.PUBLISHED, ""
    if story.first is not None:
        return Fate.DUPLICATE, f"of row {story.first.row} of {story.first.uri}"
    if story.letters:
        return Fate.DEAD_LETTER, str(story.letters[0]["reason"])
    if at.blank:
        return Fate.BLANK, "a blank line or a comment"
    if story.lake:
        return Fate.PUBLISHED, "it is in the lake"
    if story.typed:
        return _by_ledger(at)
    if at.block is not None and not at.bad:
        return Fate.IN_PROGRESS, "its block is cut, no typed row of it is to be found"
    return Fate.UNKNOWN, ""


def _by_ledger(at: Subject) -> tuple[Fate, str]:
    """Of a typed row whose published message, its own or another's, is gone."""
    account = at.trail.account
    known = {(p, o): d for (_, p, o), d in (account.typed.places() if account else ())}
    for where in at.story.typed:
        delivery = known.get((where.partition, where.offset))
        if delivery is not None:
            emitted, repeated = delivery.rows(RowFate.EMITTED), delivery.rows(RowFate.DUPLICATE)
            if not repeated:
                return Fate.PUBLISHED, "the ledger says so, its message is gone"
            if not emitted:
                return Fate.DUPLICATE, "the ledger says so; of which row is gone"
            return Fate.UNKNOWN, f"{emitted} rows of its typed message were published, {repeated} were duplicates"
    return Fate.IN_PROGRESS, "the normalizer has not taken it yet"


@dataclass(frozen=True, slots=True)
class Meant:
    """A row that was searched for. object_id, content_hash: "": not known."""

    object_id: str
    uri: str
    row: int
    content_hash: str = ""


def search(reads: Reads, fitting: Fitting) -> Iterator[Meant]:
    """-> the rows of `typed` that are meant, each once. Raises Retriable."""
    seen: set[Meant] = set()
    for input in reads.all_of("typed"):
        batch = read(input.value)
        for place in fitting(input, batch):
            facts, row = object_of(batch, place)
            # Rows of an object are told apart by their number, rows of events by what they say, too.
            content_hash = batch.column(HASH)[place].as_py() if events.is_of_event(facts["uri"]) else ""
            meant = Meant(facts["id"], facts["uri"], row, content_hash)
            if meant not in seen:
                seen.add(meant)
                yield meant
