"""From a row forward: its typed message, what was published of it or in its place, dead letters, files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa

from ingestcore.kafka import admin
from ingestcore.messages.blocks import SEGMENT_BYTES
from ingestcore.messages.dead_letters import DeadLetter
from ingestcore.messages.lake import LETTERS_TABLE
from ingestcore.messages.rows import HASH, KEY, PROVENANCE, read
from ingestcore.stage import Input
from ingestcore.trace.lake import MOST_FILES, Found, Search
from ingestcore.trace.places import object_of, rows_of_key, rows_of_object, speaks_of
from ingestcore.trace.reads import Reads, Subject
from ingestcore.trace.story import First, Hash, Where


def find_typed(reads: Reads, at: Subject) -> None:
    """Raises Retriable."""
    account = at.trail.account
    spots = reads.spots(account.typed if account else None, "typed", at.partition)
    for input in reads.picked("typed", spots):
        batch = read(input.value)
        for index in rows_of_object(batch, at.trail.id, at.number):
            at.story.typed.append(Where("typed", input.at.partition, input.at.offset, index))
            at.key, at.partition = batch.column(KEY)[index].as_py(), input.at.partition
            at.story.key = at.key.hex()
            at.learn_entity(batch, index)
            _recorded(at, batch.column(HASH)[index].as_py())
    if not at.story.typed and not at.bad and not at.blank:
        reads.say_gone(at.story, "typed", spots, "no typed message on record holds the row")


def find_published(reads: Reads, at: Subject) -> None:
    """Look where the sinks took rows of the object from; then, for the row itself or the one that was published in its
    place, through the whole partition. Raises Retriable."""
    account = at.trail.account
    sinks = account.sinks.values() if account else ()
    spots = sorted({spot for sink in sinks for spot in reads.spots(sink, "normalized", at.partition)})
    for input in reads.picked("normalized", spots):
        batch = read(input.value)
        for index in rows_of_object(batch, at.trail.id, at.number):
            _publish(at, input, batch, index)
    if at.published is None and at.partition is not None and at.key:
        for input in reads.all_of("normalized", at.partition):
            batch = read(input.value)
            for index in rows_of_key(batch, at.key):
                take_same_key(at, input, batch, index)
    if at.published is None and at.story.first is None and at.partition is not None:
        start = reads.bounds["normalized", at.partition].start
        if start:
            at.story.note(f"normalized[{at.partition}] begins at {start}: retention has removed what was before")


def take_same_key(at: Subject, input: Input, batch: pa.RecordBatch, index: int) -> None:
    facts, number = object_of(batch, index)
    if (facts["id"], number) == (at.trail.id, at.number):
        _publish(at, input, batch, index)
    elif at.story.first is None:
        where = Where("normalized", input.at.partition, input.at.offset, index)
        at.story.first = First(facts["uri"], number, where)


def _publish(at: Subject, input: Input, batch: pa.RecordBatch, index: int) -> None:
    where = Where("normalized", input.at.partition, input.at.offset, index)
    at.story.normalized.append(where)
    at.published = (where, input.timestamp_ms)
    at.story.moments["published"] = input.timestamp_ms
    at.learn_entity(batch, index)
    _recorded(at, batch.column(PROVENANCE)[index].as_py()["contentHash"])


def _recorded(at: Subject, content_hash: str) -> None:
    """The hash rows carry, where the block that says it is gone."""
    known = at.story.hash
    if known is not None and not known.recorded:
        at.story.hash = replace(known, recorded=content_hash)
    elif known is None and at.story.raw is not None:
        at.story.hash = Hash(at.story.raw.first // SEGMENT_BYTES, content_hash, "")


def find_letters(reads: Reads, at: Subject) -> None:
    """In the topic, else in the lake of dead letters. Raises Retriable, Refused."""
    if at.story.normalized or at.story.first:
        return
    letters: dict[str, dict[str, Any]] = {}
    for input in reads.all_of("dlq"):
        letter = DeadLetter.of(input.value, input.headers)
        if speaks_of(letter, at.trail.id, at.number):
            place = {"partition": input.at.partition, "offset": input.at.offset}
            told = {"reason": letter.reason.value, "stage": letter.stage, "message": letter.message}
            letters.setdefault(letter.id, {"id": letter.id, **told, **place})
    if not letters and not at.story.typed:
        for files in reads.sinks("dlq"):
            for found in files.letters(LETTERS_TABLE, at.story.tenant, Search.letter(at.story.uri, at.number))[0]:
                told = {name: found.row[name] for name in ("id", "reason", "stage", "message")}
                letters.setdefault(told["id"], {**told, "file": found.held.file})
    at.story.letters = list(letters.values())


def find_files(reads: Reads, at: Subject) -> None:
    """Files of the lake, by the record they are made of; where that is gone, by their footers. Raises Retriable,
    Refused."""
    table = at.story.dataset.rpartition("@")[0]
    if at.story.lake or at.story.first or at.story.letters or at.blank or not table:
        return
    for files in reads.sinks("normalized", table):
        if at.published is not None:
            where, time_ms = at.published
            topic_id = reads.topics["normalized"].topic_id
            found = files.of_record(table, at.story.tenant, topic_id, where, time_ms, at.story.uri, at.number)
            if not found:
                at.story.note(f"not in the lake of sink {files.sink} yet: {progress(reads, files.sink, where)}")
        else:
            found, whole = files.anywhere(table, at.story.tenant, at.story.uri, at.number)
            _say_unseen(at, table, whole)
        at.story.lake += [hit.held for hit in found]


def find_in_lake_alone(reads: Reads, at: Subject) -> None:
    """Of an object that listing and ledger do not know: whatever its rows in the lake say of it. Raises Retriable,
    Refused."""
    for table in reads.specs.pointers():
        for files in reads.sinks("normalized", table):
            found, whole = files.anywhere(table, "", at.story.uri, at.number)
            _say_unseen(at, table, whole)
            for hit in found:
                at.story.lake.append(hit.held)
                _learn(at, hit)


def _learn(at: Subject, hit: Found) -> None:
    provenance = hit.row[PROVENANCE]
    steps = [step for step in provenance["transformations"] or () if step.startswith("csv-parse:")]
    at.story.source = provenance["sourceId"]
    at.story.dataset = steps[0].removeprefix("csv-parse:") if steps else ""
    at.story.tenant = hit.tenant
    at.story.hash = Hash(None, provenance["contentHash"], "")


def _say_unseen(at: Subject, table: str, whole: bool) -> None:
    if not whole:
        at.story.note(f"the first {MOST_FILES} files of {table} were looked at, there are more")


def progress(reads: Reads, sink: str, where: Where) -> str:
    group, name = reads.platform.group(sink), reads.topics["normalized"].name
    done = admin.committed(admin.open_admin(reads.platform), group).get((name, where.partition))
    if done is not None and done > where.offset:
        return f"its group is past the row, at offset {done}; `ingest ledger` tells whether rows are missing"
    return f"its group is at offset {'none' if done is None else done}, the row at {where.offset}"
