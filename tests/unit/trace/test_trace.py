"""Tracing without servers: where a row is, told by numbers; its bytes; the files that hold it; what it all means."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ingestcore.datasets.spec import DatasetSpec
from ingestcore.ledger.facts import Account
from ingestcore.messages.blocks import SEGMENT_BYTES
from ingestcore.messages.dead_letters import DeadLetter
from ingestcore.messages.lake import Span, file_name, footer, span_in, span_named
from ingestcore.messages.ledger import Entry
from ingestcore.messages.objects import ObjectRef
from ingestcore.reasons import Reason
from ingestcore.stage import Fate as RowFate
from ingestcore.stage import Origin
from ingestcore.stores.ranged import TAIL_BYTES, RangedFile
from ingestcore.testing.sink_world import MemoryBucket, SinkWorld, dead_letter, normalized, object_facts
from ingestcore.testing.typed_rows import facts_of, typed_batch
from ingestcore.trace.lake import Search, SinkFiles
from ingestcore.trace.places import block_of, object_of, rows_of_key, rows_of_object, speaks_of
from ingestcore.trace.reads import Subject
from ingestcore.trace.stored import StoredObject
from ingestcore.trace.story import Fate, First, InLake, Raw, Story, Where
from ingestcore.trace.tracer import conclude
from ingestcore.trace.trail import Ambiguous, Trail, choose
from services.parquet_sink import wiring
from services.parquet_sink.settings import ParquetSinkSettings

A, B = facts_of("a.csv"), facts_of("b.csv")


# -- which block
@pytest.mark.parametrize("seed", range(30))
def test_the_block_of_a_row_follows_from_counts_alone(seed: int) -> None:
    chance = random.Random(seed)
    partitions, object_id = chance.randint(1, 9), f"{chance.getrandbits(128):032x}"
    ends, blocks, rows_before = [chance.randint(0, 50) for _ in range(partitions)], [], []
    row = 1
    for number in range(chance.randint(1, 40)):
        partition = (int(object_id[:8], 16) + number) % partitions
        ends[partition] += chance.randint(1, 5)
        rows = chance.randint(1, 100)
        blocks.append((partition, ends[partition], rows))
        rows_before.append(row)
        row += rows
    asked = chance.randrange(1, row)
    expected = next(b for b, first in zip(blocks, rows_before, strict=True) if first <= asked < first + b[2])
    chance.shuffle(blocks)
    assert block_of(blocks, partitions, object_id, asked) == expected[:2]
    assert block_of(blocks, partitions, object_id, row) is None


def test_where_a_block_is_missing_nothing_is_claimed() -> None:
    blocks = [(p, 0, 10) for p in (0, 1, 3)]
    assert block_of(blocks, 4, "0" * 32, 15) == (1, 0)
    assert block_of(blocks, 4, "0" * 32, 25) is None
    assert block_of([], 4, "0" * 32, 1) is None


# -- rows of messages
def test_rows_are_found_by_object_and_number_or_by_key() -> None:
    keys = [bytes(15) + b"\1", bytes(16), b"\1" + bytes(15), bytes(15) + b"\1"]
    batch = typed_batch(keys, [A, B, A, B], rows=[7, 7, 8, 9])
    assert rows_of_object(batch, B.id, 7) == [1]
    assert rows_of_object(batch, A.id, 9) == rows_of_object(batch, "f" * 32, 7) == []
    assert rows_of_key(batch, keys[0]) == [0, 3]
    assert rows_of_key(batch, bytes(16)) == [1]
    facts, row = object_of(batch, 3)
    assert (facts["uri"], row) == (B.uri, 9)
    part = batch.slice(2)
    assert rows_of_object(part, A.id, 8) == rows_of_key(part, keys[2]) == [0]
    assert rows_of_key(part, keys[0]) == [1]


@pytest.mark.parametrize(
    ("rows", "facts", "spoken_of"),
    [
        (1, {"row": "5"}, [5]),
        (4, {"row": "5", "row_last": "9", "rows": "5-7,9"}, [5, 6, 7, 9]),
        (0, {}, [1, 5, 9, 10]),
        (0, {"row": "6"}, [6, 7, 9, 10]),
    ],
)
def test_a_letter_speaks_of_a_row_a_run_or_the_rest(rows: int, facts: dict[str, str], spoken_of: list[int]) -> None:
    letter = DeadLetter(
        raw=b"",
        reason=Reason.VALIDATION_FAIL,
        message="",
        stage="csv-parser",
        topic="t",
        partition=0,
        offset=0,
        origin=A.id,
        object=A,
        rows=rows,
        facts=facts,
    )
    assert [row for row in (*spoken_of, 4, 8) if speaks_of(letter, A.id, row)] == [
        row for row in (*spoken_of, 4, 8) if row in spoken_of or (not facts) or (rows == 0 and row >= 6)
    ]
    assert not speaks_of(letter, B.id, spoken_of[0])


# -- which object
def trail(uri: str, id: str = "", seen_ms: int = 0) -> Trail:
    return Trail(id or uri, uri, seen_ms=seen_ms)


def test_an_object_is_meant_by_its_address_its_name_or_a_part_of_it() -> None:
    one, two, longer = trail("s3://b/x/a.csv"), trail("s3://b/y/c.csv"), trail("s3://b/x/a.csv.gz")
    assert choose([one, longer], "s3://b/x/a.csv") == (one, [])
    assert choose([one, longer], "a.csv") == (one, [])
    assert choose([two], "c") == (two, [])
    assert choose([], "c") == (None, [])
    with pytest.raises(Ambiguous, match=r"fits 2 objects: s3://b/x/a\.csv, s3://b/y/c\.csv"):
        choose([one, two], "csv")


def test_of_the_versions_of_an_object_the_latest_is_meant_and_each_by_its_id() -> None:
    old, new = trail("s3://b/a.csv", "1" * 32, 5), trail("s3://b/a.csv", "2" * 32, 9)
    assert choose([new, old], "s3://b/a.csv") == (new, [old])
    assert choose([new, old], "1" * 32) == (old, [])


# -- bytes
SPEC = DatasetSpec.model_validate({"fields": {"id": "integer", "text": "string"}})


def stored(data: bytes, key: str = "a.csv") -> StoredObject:
    bucket = MemoryBucket()
    bucket.put("b", key, data)
    return StoredObject(bucket, "b", key, "etag", len(data))


def csv(rows: int) -> tuple[bytes, list[bytes]]:
    records = [f'{n},"line one\nline {"x" * (n % 90)}"\n'.encode() for n in range(rows)]
    return b"id,text\n" + b"".join(records), records


@pytest.mark.parametrize("packed", [False, True])
def test_bytes_and_hashes_of_an_object_plain_or_compressed(packed: bool) -> None:
    data, _ = csv(200_000)
    assert len(data) > 2 * SEGMENT_BYTES
    object = stored(gzip.compress(data, 1), "a.csv.gz") if packed else stored(data)
    assert object.gzip is packed
    assert object.bytes_of(5_000_000, 5_000_100) == data[5_000_000:5_000_100]
    assert object.bytes_of(len(data) - 3, len(data) + 50) == data[-3:]
    segment = data[SEGMENT_BYTES : 2 * SEGMENT_BYTES]
    assert object.content_hash(SEGMENT_BYTES) == (1, hashlib.sha256(segment).hexdigest())
    last = len(data) // SEGMENT_BYTES
    assert object.content_hash(len(data) - 1) == (last, hashlib.sha256(data[last * SEGMENT_BYTES :]).hexdigest())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("row", [1, 2, 77_777, 150_000])
def test_a_row_is_found_by_reading_from_the_beginning(packed: bool, row: int) -> None:
    data, records = csv(150_000)
    found = stored(gzip.compress(data, 1) if packed else data).find(SPEC, row, 1 << 20)
    assert found is not None
    assert (found.raw, found.columns) == (records[row - 1], ("id", "text"))
    assert data[found.first_byte :][: len(found.raw)] == found.raw


def test_rows_that_are_not_there() -> None:
    data, _ = csv(10)
    assert stored(data).find(SPEC, 11, 1 << 20) is None
    assert stored(b"other,header\n1,2\n").find(SPEC, 1, 1 << 20) is None
    assert stored(b"").find(SPEC, 1, 1 << 20) is None
    assert stored(data + b"5,last without end").find(SPEC, 11, 1 << 20) is not None
    whole, _ = csv(50_000)
    packed = gzip.compress(whole, 1)
    broken = packed[: len(packed) // 2]
    assert stored(broken).find(SPEC, 3, 1 << 20) is not None
    assert stored(broken).find(SPEC, 10**6, 1 << 20) is None


def test_an_object_reads_like_a_file() -> None:
    data = random.Random(1).randbytes(3 * TAIL_BYTES)
    bucket = MemoryBucket()
    bucket.put("b", "k", data)
    file, real = RangedFile(bucket, "b", "k", "etag", len(data)), io.BytesIO(data)
    for offset, whence, size in ((-8, 2, 8), (0, 0, 10), (5, 1, 10), (-TAIL_BYTES, 2, -1), (10**9, 0, 5), (-9, 2, 99)):
        assert file.seek(offset, whence) == real.seek(offset, whence)
        assert file.read(size) == real.read(size)
        assert file.tell() == real.tell()


# -- files of the lake
def lake(tmp_path: Path, *inputs: Any, **sink: Any) -> tuple[SinkWorld, SinkFiles]:
    """Written by the sink itself, three claims of a record each."""
    world = SinkWorld(tmp_path / "state", {0: []})
    world.specs.more |= sink
    stage = wiring.open_sink(world.context(ParquetSinkSettings()), clock=world.clock)
    stage.assigned([0])
    for input in inputs:
        list(stage.process(input, None))
        assert list(stage.settle(final=True))
    return world, SinkFiles(world.bucket, "lake", "s3://out/lake/")


def test_the_file_of_a_record_and_the_row_in_it(tmp_path: Path) -> None:
    facts = object_facts("orders.csv", tenant="acme")
    inputs = [normalized(n, pa.table({"x": [n, -n]}), [facts], first_row=10 * n) for n in range(3)]
    world, files = lake(tmp_path, *inputs)
    (found,) = files.of_record(
        "orders", "acme", "topic-id", Where("normalized", 0, 1), inputs[1].timestamp_ms, facts.uri, 11
    )
    assert (found.row["x"], found.row["_row"], found.tenant) == (-1, 11, "acme")
    assert found.held.file.removeprefix("s3://out/") in world.files()
    for other in (Where("normalized", 0, 3), Where("normalized", 1, 1)):
        assert not files.of_record("orders", "acme", "topic-id", other, inputs[1].timestamp_ms, facts.uri, 11)
    assert not files.of_record(
        "orders", "acme", "another", Where("normalized", 0, 1), inputs[1].timestamp_ms, facts.uri, 11
    )


def test_where_kafka_has_forgotten_the_footers_are_asked(tmp_path: Path) -> None:
    one, other = object_facts("a.csv", tenant="acme"), object_facts("b.csv", tenant="acme")
    inputs = [normalized(n, pa.table({"x": [n]}), [one if n < 2 else other], first_row=5 + n % 2) for n in range(4)]
    _, files = lake(tmp_path, *inputs)
    found, whole = files.anywhere("orders", "", other.uri, 6)
    assert ([hit.row["x"] for hit in found], whole) == ([3], True)
    assert files.anywhere("orders", "nobody", other.uri, 6) == ([], True)
    assert files.anywhere("orders", "", other.uri, 7) == ([], True)

    def three(batch: pa.RecordBatch) -> list[int]:
        return [i for i, x in enumerate(batch.column("x").to_pylist()) if x == 3]

    assert list(files.having("orders", ["x"], three)) == [(other.uri, 6)]
    assert list(files.having("orders", ["y"], three)) == []


def test_only_what_may_hold_the_row_is_read(tmp_path: Path) -> None:
    facts = object_facts("a.csv")
    data = pa.table({"text": [random.Random(n).randbytes(50).hex() for n in range(3000)]})
    world, files = lake(tmp_path, *(normalized(n, data, [facts], first_row=1 + 3000 * n) for n in range(3)))
    read: list[str] = []
    world.bucket.before = lambda operation, key: read.append(key) if operation == "get" else None
    assert len(files.anywhere("orders", "", facts.uri, 4000)[0]) == 1
    counts = sorted(read.count(key) for key in set(read))
    assert counts[:2] == [1, 1]  # the footers of the two others


def test_dead_letters_in_the_lake(tmp_path: Path) -> None:
    facts = object_facts("orders.csv", tenant="acme")
    _, files = lake(
        tmp_path, dead_letter(0, b"x\n", facts, row=5), dead_letter(1, b"y\n", facts, row=6), **{"from": "dlq"}
    )
    found, _ = files.letters("dlq", "acme", Search.letter(facts.uri, 6))
    assert [(hit.row["raw"], hit.row["reason"]) for hit in found] == [(b"y\n", "VALIDATION_FAIL")]
    for said, raws in (('"row":"5"', [b"x\n"]), ('"row":"7"', [])):
        assert [hit.row["raw"] for hit in files.letters("dlq", "", Search({}, said))[0]] == raws


def test_a_file_says_where_it_comes_from_by_its_name_and_by_its_footer() -> None:
    span = Span("normalized", "a-b_c", 12, 5, 900)
    assert span_named(f"lake/orders/tenant=x/ingest_date=y/{file_name(span, '3', '-0a1b2c3d')}", "normalized") == span
    assert span_named("lake/orders/part-0001.parquet", "normalized") is None
    told = {k.encode(): v.encode() for k, v in footer("orders@3", span).items()}
    assert span_in(told) == span
    assert span_in({b"pandas": b"{}"}) is None and span_in(None) is None
    assert [span.holds("a-b_c", 12, offset) for offset in (4, 5, 900, 901)] == [False, True, True, False]


# -- what it means
def subject(**found: Any) -> Subject:
    about = {name: found.pop(name) for name in ("blank", "bad", "block") if name in found}
    story = Story("s3://b/a.csv", 5)
    for name, value in found.items():
        setattr(story, name, value)
    return Subject(Trail(A.id, "s3://b/a.csv"), 5, story, **about)


HERE = Where("typed", 0, 3)
FIRST = First("s3://b/z.csv", 9, HERE)
LETTER = {"id": "x", "reason": "VALIDATION_FAIL", "stage": "csv-parser", "message": ""}


@pytest.mark.parametrize(
    ("found", "fate"),
    [
        ({}, Fate.UNKNOWN),
        ({"typed": [HERE], "normalized": [HERE]}, Fate.PUBLISHED),
        ({"typed": [HERE], "normalized": [HERE], "first": FIRST}, Fate.PUBLISHED),
        ({"typed": [HERE], "first": FIRST}, Fate.DUPLICATE),
        ({"letters": [LETTER]}, Fate.DEAD_LETTER),
        ({"blank": True}, Fate.BLANK),
        ({"lake": [InLake("lake", "f", 0)]}, Fate.PUBLISHED),
        ({"typed": [HERE]}, Fate.IN_PROGRESS),
        ({"block": object()}, Fate.IN_PROGRESS),
        ({"block": object(), "bad": True}, Fate.UNKNOWN),
    ],
)
def test_what_became_of_the_row(found: dict[str, Any], fate: Fate) -> None:
    assert conclude(subject(**found))[0] is fate


@pytest.mark.parametrize(
    ("fates", "fate"),
    [
        ({RowFate.EMITTED: (5, 0)}, Fate.PUBLISHED),
        ({RowFate.DUPLICATE: (5, 0)}, Fate.DUPLICATE),
        ({RowFate.EMITTED: (3, 0), RowFate.DUPLICATE: (2, 0)}, Fate.UNKNOWN),
    ],
)
def test_where_messages_are_gone_the_ledger_tells_as_much_as_it_can(
    fates: dict[RowFate, tuple[int, int]], fate: Fate
) -> None:
    at = subject(typed=[HERE])
    origin = Origin(A.id, "default", "s", "items@1", "s3://b/a.csv")
    account = at.trail.accounts["items@1"] = Account(origin)
    account.take("normalizer", Entry("typed", "id", 0, 3, "p", "u", 0, True, fates), 1)
    found, why = conclude(at)
    assert found is fate
    assert why


def test_a_story_is_told_in_the_order_of_the_rows_way_and_as_json() -> None:
    story = Story(
        "s3://b/a.csv", 5, raw=Raw(10, 15, b"5,\xff\n", "its block"), s3="there, the same bytes", block=(1, 2, 3)
    )
    story.note("once")
    story.note("once")
    titles = [title for title, _ in story.lines()]
    assert titles == ["row", "object", "bytes", "text", "in S3", "block", "fate", "note"]
    assert dict(story.lines())["text"] == r"'5,\\xff'"
    told = story.as_dict()
    assert told["raw"]["data"] == {"hex": "352cff0a"}
    assert told["block"] == {"partition": 1, "offset": 2, "number": 3}


def test_a_trail_speaks_for_the_dataset_version_that_read_the_object_last() -> None:
    ref = ObjectRef("default", "s", "items", "b", "a.csv", "etag", 5, "", "")
    seen = Trail(ref.id, ref.uri, ref)
    assert seen.origin is not None and seen.origin.dataset == "items"
    for dataset, moment in (("items@1", 5), ("items@2", 9), ("items", 12)):
        account = seen.accounts[dataset] = Account(Origin(ref.id, "default", "s", dataset, ref.uri))
        account.updated_ms = moment
    assert seen.origin is not None and seen.origin.dataset == "items@2"
