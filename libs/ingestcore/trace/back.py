"""From a row back to its bytes: the block it was cut into, the object in S3, and what the parser makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from ingestcore.datasets.registry import NotSeenYet
from ingestcore.messages.blocks import SEGMENT_BYTES, Block
from ingestcore.stores.objects import Changed, Missing
from ingestcore.tabular.block import parse_block
from ingestcore.tabular.inflate import Damaged
from ingestcore.tabular.keys import Owner, keys
from ingestcore.tabular.partition import partition_of
from ingestcore.tabular.plan import Plan
from ingestcore.tabular.reader import Reader
from ingestcore.tabular.records import Records
from ingestcore.trace.places import block_of
from ingestcore.trace.reads import Reads, Spot, Subject
from ingestcore.trace.stored import StoredObject
from ingestcore.trace.story import Hash, Raw

_GONE: Final = "the version it was read from is gone"


def find_block(reads: Reads, at: Subject) -> None:
    """Look for the block in the topic. Raises Retriable."""
    account = at.trail.account
    reading = account.reading() if account else None
    if account is None or reading is None or at.spec is None:
        at.story.note("no download of the object is on record in the ledger")
        return
    spots = reads.spots(account.blocks, "blocks", by=reading.pass_id)
    if not spots:
        at.story.note("no block of the object is on record: not parsed yet, parsed without the topic, or forgotten")
        return
    rows = {(p, o): delivery.rows() for (_, p, o), delivery in account.blocks.places(reading.pass_id)}
    counted = [(partition, offset, rows[partition, offset]) for partition, offset in spots]
    likely = block_of(counted, reads.topics["blocks"].partitions, at.trail.id, at.number)
    # Where the arithmetic does not hold (rows that are in no block, another partition count) every block is asked.
    if not (likely and _take_block(reads, at, [likely])) and not _take_block(reads, at, spots):
        reads.say_gone(at.story, "blocks", spots, "the row is in none of the object's blocks")


def _take_block(reads: Reads, at: Subject, spots: Sequence[Spot]) -> bool:
    assert at.spec is not None
    for input in reads.picked("blocks", spots):
        block = Block.of(input.headers)
        end = block.first_row + (input.rows or 0)
        if block.object.id != at.trail.id or not block.first_row <= at.number < end:
            continue
        records = Records.of(input.value, at.spec.csv)
        ordinal = at.number - block.first_row
        first, raw = block.first_byte + int(records.starts[ordinal]), records.raw(ordinal)
        at.block, at.columns = block, block.columns
        at.story.etag = block.object.etag
        at.story.block = (input.at.partition, input.at.offset, block.number)
        at.story.raw = Raw(first, first + len(raw), raw, "its block")
        segment = first // SEGMENT_BYTES
        at.story.hash = Hash(segment, dict(block.segments).get(segment, ""), "")
        return True
    return False


def find_bytes(reads: Reads, at: Subject) -> None:
    """Compare with S3; where the block is gone, find the row there. Raises Retriable, Refused."""
    story = at.story
    try:
        stored = _stored(reads, at)
        if stored is None:
            return
        if story.raw is not None:
            same = stored.bytes_of(story.raw.first, story.raw.last) == story.raw.data
            story.s3 = "there, the same bytes" if same else "there, OTHER bytes at this range"
        elif at.spec is not None:
            found = stored.find(at.spec, at.number, reads.platform.max_row_bytes)
            if found is None:
                story.s3 = f"there, and no row {at.number} is to be found in it"
                return
            at.columns, story.s3 = found.columns, "there"
            last = found.first_byte + len(found.raw)
            story.raw = Raw(found.first_byte, last, found.raw, "S3, read from its beginning")
        if story.raw is not None:
            number, computed = stored.content_hash(story.raw.first)
            story.hash = Hash(number, story.hash.recorded if story.hash else "", computed)
    except (Missing, Changed):
        story.s3 = _GONE
    except Damaged as error:
        story.s3 = f"there, and damaged: {error}"


def _stored(reads: Reads, at: Subject) -> StoredObject | None:
    """-> the version the row was read from; of an object nobody remembers the ETag of, the one that is there now."""
    bucket, _, key = at.story.uri.removeprefix("s3://").partition("/")
    try:
        place = reads.specs.source(at.story.source).objects
    except NotSeenYet:
        at.story.note(f"source {at.story.source or '?'} is not in the configuration: S3 is the environment's")
        place = None
    store = reads.open_store(place)
    listed = next((entry for entry in store.list(bucket, key) if entry.key == key), None)
    if listed is None:
        at.story.s3 = f"{_GONE}: the object is deleted"
        return None
    if at.story.etag and listed.etag != at.story.etag:
        at.story.s3 = f"{_GONE}: the object was replaced (now ETag {listed.etag})"
        return None
    at.story.etag = listed.etag
    return StoredObject(store, bucket, key, listed.etag, listed.size)


def judge(reads: Reads, at: Subject) -> None:
    """Read the row's bytes as the parser does: blank, bad, or with a key that says its partition."""
    raw, spec = at.story.raw, at.spec
    if raw is None or spec is None or at.columns is None:
        return
    plan = Plan.of(spec, at.columns)
    parsed = parse_block(raw.data, Reader(plan), plan)
    at.blank, at.bad = parsed.records.blank == parsed.records.count, bool(parsed.bad)
    if parsed.rows.num_rows:
        owner = Owner(at.story.tenant, at.story.dataset.rpartition("@")[0], (at.story.uri, at.story.etag))
        numbers = pa.array([at.number], pa.int64())
        made = keys(parsed.rows.combine_chunks(), spec, [(owner, 1)], numbers)
        at.key = made.key[0].as_py()
        at.story.key = at.key.hex()
        at.partition = int(partition_of(made.entity, reads.topics["typed"].partitions)[0])
