"""chunk-downloader as a stage: what comes out of an object, whatever the sizes, and after a crash."""

from __future__ import annotations

import gzip
import hashlib
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import orjson
import pytest

from ingestcore.datasets.registry import NotSeenYet, Registry
from ingestcore.messages.blocks import SEGMENT_BYTES, Block
from ingestcore.messages.objects import ObjectRef
from ingestcore.observe.metrics import Metrics
from ingestcore.reasons import Reason
from ingestcore.stage import At, Fate, Input, Line, Reject, Step, check
from ingestcore.stores.objects import Missing, Refused, Unavailable
from ingestcore.testing.memory_store import MemoryStore, busy, etag_of
from services.chunk_downloader.parts import Budget
from services.chunk_downloader.settings import ChunkDownloaderSettings
from services.chunk_downloader.stage import Downloader
from services.chunk_downloader.streams import Workers
from services.chunk_downloader.token import Token

KIB = 1 << 10
HEADER = b"id,name\n"


@pytest.fixture(scope="module")
def pools() -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
    with ThreadPoolExecutor(4) as fetching, ThreadPoolExecutor(2) as computing:
        yield fetching, computing


def patiently(run: Iterator[Step | None]) -> Iterator[Step]:
    """As the runtime: sleep when nothing is ready."""
    for step in run:
        if step is None:
            time.sleep(0.0005)
        else:
            yield step


@dataclass
class Bench:
    """A downloader over a store in memory, and what one object becomes in it."""

    stage: Downloader
    store: MemoryStore
    specs: Registry
    budget: Budget
    metrics: Metrics

    def ref(self, data: bytes, key: str = "raw/a.csv", *, size: int | None = None) -> ObjectRef:
        self.store.put("lake", key, data)
        return ObjectRef(
            "acme", "main", "birds", "lake", key, etag_of(data), len(data) if size is None else size, "t", "T"
        )

    def steps(self, ref: ObjectRef, resume: str | None = None) -> list[Step]:
        given = Input(At("objects", 0, 7), ref.encode(), {})
        steps = list(patiently(self.stage.process(given, resume)))
        for step in steps:
            check(step)
        assert [step.resume is None for step in steps] == [False] * (len(steps) - 1) + [True]
        assert all(step.resume is None or len(step.resume) <= 300 for step in steps)
        return steps


@pytest.fixture
def bench(pools: tuple[ThreadPoolExecutor, ThreadPoolExecutor]):
    def make(spec: dict[str, object] | None = None, *, max_row_bytes: int = 1 << 20, **settings: object) -> Bench:
        specs, store, metrics = Registry({}), MemoryStore("lake"), Metrics()
        specs.feed("source/main", orjson.dumps({"s3": {"bucket": "lake"}, "provenance": {"purpose": "INV-7"}}))
        specs.feed("dataset/birds@1", orjson.dumps(spec or {}))
        specs.feed("dataset/birds", b'{"version": 1}')
        sizes = {"chunk_size": 64 * KIB, "block_bytes": 64 * KIB, "memory_budget": 64 << 20, **settings}
        budget = Budget(64 << 20)
        workers = Workers(*pools, budget)
        stage = Downloader(
            ChunkDownloaderSettings(**sizes),
            max_row_bytes,
            specs,
            lambda _: store,
            8,
            workers,
            metrics,  # type: ignore[arg-type]
        )
        return Bench(stage, store, specs, budget, metrics)

    return make


def rows_csv(n: int, seed: int = 0, width: int = 40) -> bytes:
    chance = random.Random(seed)
    made = bytearray()
    for i in range(n):
        kind = chance.randrange(12)
        text = b"x" * chance.randrange(width)
        made += b"%d," % i + (
            b'"%s\n""%s"\r\n' % (text, text) if kind == 0 else text + b' 5" pipe\n' if kind == 1 else text + b"\n"
        )
    return bytes(made)


def blocks(steps: list[Step]) -> list[tuple[Block, bytes, int]]:
    return [(Block.of(e.headers), bytes(e.value), e.rows) for step in steps for e in step.emits]


def letters(steps: list[Step]) -> list[Reject]:
    return [reject for step in steps for reject in step.rejects]


def tally(steps: list[Step], fate: Fate) -> tuple[int, int]:
    lines = [line for step in steps for line in step.tally if line.fate is fate]
    return sum(line.rows for line in lines), sum(line.nbytes for line in lines)


def check_blocks(steps: list[Step], data: bytes, head: int) -> None:
    """Blocks follow each other without a gap, numbered, with the hash of each segment a record starts in."""
    at, row = head, 1
    for number, (block, value, rows) in enumerate(blocks(steps)):
        assert (block.number, block.first_row) == (number, row)
        assert data[block.first_byte : block.first_byte + len(value)] == value
        for segment, digest in block.segments:
            piece = data[segment * SEGMENT_BYTES : (segment + 1) * SEGMENT_BYTES]
            assert digest == hashlib.sha256(piece).hexdigest()
        numbers = [segment for segment, _ in block.segments]
        assert numbers == list(range(block.first_byte // SEGMENT_BYTES, numbers[-1] + 1))
        at, row = at + len(value), row + rows
    assert at == len(data)


def test_an_object_becomes_blocks_that_know_object_rows_bytes_and_columns(bench) -> None:
    on = bench()
    data = HEADER + rows_csv(12_000)
    steps = on.steps(on.ref(data))
    check_blocks(steps, data, len(HEADER))
    found = blocks(steps)
    assert len(found) > 4
    facts = found[0][0].object
    assert (facts.tenant, facts.source, facts.dataset, facts.uri) == ("acme", "main", "birds@1", "s3://lake/raw/a.csv")
    assert facts.provenance == {"purpose": "INV-7", "ingestedBy": "ingest-platform"}
    assert {block.columns for block, _, _ in found} == {("id", "name")}
    assert [block.last for block, _, _ in found] == [False] * (len(found) - 1) + [True]
    assert tally(steps, Fate.BLANK) == (0, len(HEADER))
    assert tally(steps, Fate.EMITTED) == (12_000, len(data) - len(HEADER))
    first = next(e for step in steps for e in step.emits)
    assert first.key == bytes.fromhex(facts.id) + bytes(4) and first.partition == found[0][0].partition(8)


@pytest.mark.parametrize("zipped", [False, True])
def test_rows_do_not_depend_on_range_or_block_size(bench, zipped: bool) -> None:
    data = HEADER + rows_csv(30_000, seed=3)
    stored = gzip.compress(data, 1) if zipped else data
    want = None
    for chunk, block in ((64, 64), (128, 1024), (16 << 10, 64), (1 << 10, 32 << 10)):
        on = bench(chunk_size=chunk * KIB, block_bytes=block * KIB, memory_budget=256 << 20, buffer_chunks=2)
        steps = on.steps(on.ref(stored, "a.csv.gz" if zipped else "a.csv"))
        check_blocks(steps, data, len(HEADER))
        rows = sum(rows for _, _, rows in blocks(steps))
        want = want or rows
        assert rows == want == 30_000


@pytest.mark.parametrize("zipped", [False, True])
def test_after_a_crash_every_token_yields_exactly_what_followed(bench, zipped: bool) -> None:
    data = HEADER + rows_csv(60_000, seed=5, width=200)
    on = bench(block_bytes=256 * KIB, max_row_bytes=64 * KIB)
    data += b'60000,"' + b"y" * 100_000 + b'"\n60001,z\n60002,"open\n' + rows_csv(50)
    assert len(data) > SEGMENT_BYTES * 1.3
    stored = gzip.compress(data, 1) if zipped else data
    ref = on.ref(stored, "b.csv.gz" if zipped else "b.csv")
    steps = on.steps(ref)
    assert len(steps) > 15
    again = bench(block_bytes=64 * KIB, chunk_size=256 * KIB, max_row_bytes=64 * KIB)
    again.ref(stored, ref.key)
    again.specs.feed("dataset/birds@2", orjson.dumps({"fields": {"other": "string"}}))
    again.specs.feed("dataset/birds", b'{"version": 2}')
    for done in range(len(steps) - 1):
        assert again.steps(ref, steps[done].resume) == steps[done + 1 :]


def test_a_resumed_plain_object_is_not_read_from_its_start(bench) -> None:
    on = bench(block_bytes=1 << 20, chunk_size=1 << 20)
    data = HEADER + rows_csv(200_000, seed=6, width=120)
    ref = on.ref(data)
    steps = on.steps(ref)
    token = steps[-3].resume
    assert token
    ranges: list[int] = []
    on.store.on_range = lambda key, first, size: ranges.append(first)
    on.steps(ref, token)
    assert sorted(ranges)[0] == 0 and sorted(ranges)[1] == Token.decode(token).byte // SEGMENT_BYTES * SEGMENT_BYTES


@pytest.mark.parametrize(
    ("data", "head"),
    [
        (b"", 0),
        (b"\xef\xbb\xbf", 3),
        (HEADER, 8),
        (HEADER.rstrip(), 7),
        (b"\xef\xbb\xbf" + HEADER, 11),
        (b"\r\n\n", 3),
    ],
)
def test_an_object_without_rows_is_counted_and_no_error(bench, data: bytes, head: int) -> None:
    on = bench()
    steps = on.steps(on.ref(data))
    assert [list(step.tally) for step in steps] == [
        [Line(At("objects", 0, 7), steps[0].tally[0].origin, Fate.BLANK, 0, head)]
    ]
    assert steps[0].emits == () and steps[0].rejects == ()


DRIFTS = [
    ({"fields": {"id": "integer", "colour": "string"}}, HEADER + b"1,a\n", "colour"),
    ({"fields": {"id": "integer"}}, HEADER + b"1,a\n", "name"),
    ({}, "id,name\n1,a\n".encode("utf-16"), "iconv -f UTF-16LE"),
    ({}, "id,name\n1,a\n".encode("utf-32"), "iconv -f UTF-32LE"),
    ({}, "id,name\n1,a\n".encode("utf-16-le"), "iconv -f UTF-16LE"),
    ({}, "id,größe\n1,a\n".encode("latin-1"), "encoding: windows-1252"),
    ({}, b"id,id\n1,a\n", "twice"),
    ({}, b'"id,name\n1,a\n', "never closed"),
]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("spec", "data", "says"), DRIFTS)
def test_an_object_unlike_its_dataset_is_one_letter_and_no_rows(
    bench, spec, data: bytes, says: str, zipped: bool
) -> None:
    on = bench(spec)
    stored = gzip.compress(data) if zipped else data
    ref = on.ref(stored)
    steps = on.steps(ref)
    (letter,) = letters(steps)
    assert (letter.reason, letter.rows, letter.nbytes) == (Reason.SCHEMA_DRIFT, 0, ref.size)
    assert says in letter.message and ref.uri in letter.message and "birds@1" in letter.message
    assert not blocks(steps) and tally(steps, Fate.REJECTED) == (0, ref.size)
    assert ObjectRef.decode(letter.facts["reference"].encode()) == ref and letter.reentry == "objects"


def test_a_header_with_newlines_in_quotes_skipped_lines_and_comments(bench) -> None:
    on = bench({"csv": {"skip_rows": 2, "comment": "#", "delimiter": ";"}})
    head = b'\xef\xbb\xbfreport "x\r\n\r\n# by hand\n\n"a\nb";c\n'
    steps = on.steps(on.ref(head + b"1;2\n# note\n\n3;4"))
    ((block, value, rows),) = blocks(steps)
    assert (block.columns, block.first_row, block.first_byte) == (("a\nb", "c"), 1, len(head))
    assert (value, rows) == (b"1;2\n# note\n\n3;4", 4)
    assert tally(steps, Fate.BLANK) == (0, len(head))


def test_without_a_header_rows_start_at_the_first_byte(bench) -> None:
    on = bench({"csv": {"header": False}, "fields": {"a": "string", "b": "string"}})
    ((block, value, rows),) = blocks(on.steps(on.ref(b"1,2\n3,4\n")))
    assert (block.columns, block.first_byte, value, rows) == ((), 0, b"1,2\n3,4\n", 2)


def test_a_long_row_is_one_letter_and_the_rest_goes_on(bench) -> None:
    on = bench(max_row_bytes=1000)
    long = b'2,"' + b"a\n" * 70_000 + b'"\n'
    data = HEADER + b"1,a\n" + long + b"3,c\n"
    steps = on.steps(on.ref(data))
    (letter,) = letters(steps)
    start = len(HEADER) + 4
    assert (letter.reason, letter.rows, letter.nbytes) == (Reason.RECORD_TOO_LARGE, 1, len(long))
    assert letter.raw == long[: 64 * KIB]
    assert {k: v for k, v in letter.facts.items() if k != "reference"} == {
        "row": "2",
        "byte_first": str(start),
        "byte_last": str(start + len(long)),
    }
    assert [(value, block.first_row) for block, value, _ in blocks(steps)] == [(b"1,a\n", 1), (b"3,c\n", 3)]
    assert tally(steps, Fate.REJECTED) == (1, len(long)) and tally(steps, Fate.EMITTED) == (2, 8)


@pytest.mark.parametrize("tail", [100, 200_000])
def test_a_quote_never_closed_takes_the_object_from_that_row_on(bench, tail: int) -> None:
    on = bench(max_row_bytes=64 * KIB)
    open_ = b'2,"' + b"b,c\n" * (tail // 4)
    steps = on.steps(on.ref(HEADER + b"1,a\n" + open_))
    (letter,) = letters(steps)
    assert (letter.reason, letter.rows, letter.nbytes) == (Reason.RECORD_TOO_LARGE, 1, len(open_))
    assert "never closed" in letter.message and letter.facts["row"] == "2" and letter.raw == open_[: 64 * KIB]
    assert [value for _, value, _ in blocks(steps)] == [b"1,a\n"]


GZIP_DAMAGE = {
    "cut in the middle": lambda stored: stored[: len(stored) // 2],
    "cut before the checksum": lambda stored: stored[:-8],
    "checksum broken": lambda stored: stored[:-5] + b"\x00" + stored[-4:],
    "bytes after it": lambda stored: stored + b"rubbish" * 9,
    "small and cut": lambda stored: gzip.compress(HEADER + b"1,a\n2,bb\n3,c\n", 0)[:-10],
}


@pytest.mark.parametrize("damage", GZIP_DAMAGE)
def test_of_a_damaged_gzip_the_rows_before_the_break_are_published(bench, damage: str) -> None:
    data = HEADER + rows_csv(100_000, seed=9)
    stored = GZIP_DAMAGE[damage](gzip.compress(data, 6))
    seen = set()
    for chunk in (64 * KIB, 1 << 20):
        on = bench(chunk_size=chunk, block_bytes=128 * KIB)
        steps = on.steps(on.ref(stored, "a.gz"))
        (letter,) = letters(steps)
        found = blocks(steps)
        published = b"".join(value for _, value, _ in found)
        assert published and published.endswith(b"\n") and not any(block.last for block, _, _ in found)
        start, end = int(letter.facts["byte_first"]), int(letter.facts["byte_last"])
        assert (letter.reason, letter.rows, letter.nbytes) == (Reason.OBJECT_CORRUPT, 0, end - start)
        assert start == len(HEADER) + len(published) and int(letter.facts["row"]) == 1 + tally(steps, Fate.EMITTED)[0]
        if damage == "small and cut":
            assert (published, letter.raw) == (b"1,a\n2,bb\n", b"3,")
        else:
            assert data[len(HEADER) :].startswith(published) and len(published) > len(data) / 2 - 100_000
        seen.add((published, letter.message, letter.raw))
    assert len(seen) == 1


def test_an_object_named_gzip_that_is_none_is_corrupt_not_rows(bench) -> None:
    on = bench()
    steps = on.steps(on.ref(HEADER + b"1,a\n", "a.csv.gz"))
    (letter,) = letters(steps)
    assert (letter.reason, letter.rows, letter.nbytes) == (Reason.OBJECT_CORRUPT, 0, 0) and not blocks(steps)


def test_gzip_is_known_by_its_first_bytes_too(bench) -> None:
    on = bench()
    assert [value for _, value, _ in blocks(on.steps(on.ref(gzip.compress(HEADER + b"1,a\n"), "a.csv")))] == [b"1,a\n"]


def test_an_object_gone_or_replaced_is_one_letter_of_the_old_version(bench) -> None:
    on = bench()
    old = HEADER + rows_csv(10_000)
    for change in ("gone", "other"):
        ref = on.ref(old)
        if change == "gone":
            on.store.delete("lake", ref.key)
        else:
            on.store.put("lake", ref.key, old + b"x")
        steps = on.steps(ref)
        (letter,) = letters(steps)
        assert (letter.reason, letter.rows, letter.nbytes) == (Reason.OBJECT_CHANGED, 0, len(old))
        assert not blocks(steps) and "row" not in letter.facts and "byte_first" not in letter.facts


def test_an_object_replaced_while_it_is_read_is_never_mixed(bench) -> None:
    on = bench(chunk_size=1 << 20, block_bytes=1 << 20, buffer_chunks=1)
    old = HEADER + rows_csv(200_000, width=100)
    ref = on.ref(old)
    assert ref.size > 2 * SEGMENT_BYTES
    on.store.on_range = lambda key, first, size: first < 6 << 20 or on.store.put("lake", key, b"new")
    steps = on.steps(ref)
    taken = 0
    for block, value, _ in blocks(steps):
        assert old[block.first_byte : block.first_byte + len(value)] == value and not block.last
        taken = block.first_byte + len(value)
    # Blocks of the segment that was not read to its end have no hash.
    assert 0 < taken <= SEGMENT_BYTES + (1 << 20)
    (letter,) = letters(steps)
    assert (letter.reason, letter.nbytes, letter.facts["taken_bytes"]) == (
        Reason.OBJECT_CHANGED,
        ref.size - taken,
        str(taken),
    )


@pytest.mark.parametrize("fault", [busy(), Refused("no credentials")])
def test_a_store_that_is_away_or_refuses_is_waited_for(bench, fault: Exception) -> None:
    on = bench()
    ref = on.ref(HEADER + rows_csv(5_000))
    on.store.faults.append(fault)
    with pytest.raises((Unavailable, Refused)):
        on.steps(ref)
    on.stage.aborted()
    assert tally(on.steps(ref), Fate.EMITTED)[0] == 5_000


def test_all_memory_is_given_back_also_when_an_object_is_dropped_half_way(bench) -> None:
    on = bench(block_bytes=64 * KIB)
    free = on.budget.free_bytes
    ref = on.ref(HEADER + b"x" * 60 + b"\n" + b"1,abcdefghi\n" * 900_000)
    open_runs = [on.stage.process(Input(At("objects", 0, n), ref.encode(), {}), None) for n in range(3)]
    for run in open_runs:
        next(patiently(run))
    assert on.budget.free_bytes < free
    for run in open_runs:
        run.close()  # type: ignore[attr-defined]
    on.steps(ref)
    assert on.budget.free_bytes == free


def test_objects_side_by_side_give_the_same_blocks_as_one_after_the_other(bench) -> None:
    on = bench(objects=2, small_objects=8, memory_budget=512 * KIB, buffer_chunks=4)
    refs = [on.ref(HEADER + rows_csv(n, seed=n), f"o{n}.csv") for n in (10, 200_000, 5, 210_000, 3_000, 190_000, 0)]
    alone = {ref.key: on.steps(ref) for ref in refs}
    runs = {ref.key: on.stage.process(Input(At("objects", 0, 7), ref.encode(), {}), None) for ref in refs}
    got: dict[str, list[Step]] = {ref.key: [] for ref in refs}
    while runs:
        for key, run in list(runs.items()):
            step = next(run, "end")
            if step == "end":
                del runs[key]
            elif step is not None:
                got[key].append(step)
        time.sleep(0.0002)
    assert got == alone


def test_a_dataset_not_in_the_configuration_yet_is_waited_for(bench) -> None:
    on = bench()
    ref = on.ref(HEADER)
    on.specs.feed("dataset/birds", None)
    with pytest.raises(NotSeenYet, match="birds"):
        on.steps(ref)


def test_time_per_object_and_step_is_in_the_metrics(bench) -> None:
    on = bench()
    on.steps(on.ref(gzip.compress(HEADER + rows_csv(100)), "a.gz"))
    for step in ("fetch", "inflate", "hash", "cut", "total"):
        assert on.metrics.registry.get_sample_value("ingest_object_seconds_count", {"step": step}) == 1


def test_a_key_that_vanished_is_missing_not_changed() -> None:
    with pytest.raises(Missing):
        MemoryStore("lake").get("lake", "x")


def test_connections_are_opened_when_partitions_come_whatever_is_wrong_with_another_source(bench) -> None:
    made = bench(max_workers=3)
    made.specs.feed("source/secret", b'{"s3": {"bucket": "lake", "access_key_id": "${NOT_SET_HERE}"}}')
    made.stage.assigned([])
    assert made.store.warmed == 0
    made.stage.assigned([0, 1])
    deadline = time.monotonic() + 10
    while made.store.warmed < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert made.store.warmed == 3
