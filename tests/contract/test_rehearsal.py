"""A rehearsal says of an object what chunk-downloader and csv-parser make of it: same rows, keys and dead letters."""

from __future__ import annotations

import gzip
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pyarrow as pa
import pytest

from ingestcore.datasets.registry import Registry
from ingestcore.datasets.spec import DatasetSpec
from ingestcore.messages.objects import ObjectRef
from ingestcore.messages.rows import read
from ingestcore.observe.metrics import Metrics
from ingestcore.stage import At, Input, Stage, Step
from ingestcore.tabular.keys import Owner
from ingestcore.tabular.rehearsal import inflate, is_gzip, rehearse, repeats
from ingestcore.testing.memory_store import MemoryStore, etag_of
from services.chunk_downloader.parts import Budget
from services.chunk_downloader.settings import ChunkDownloaderSettings
from services.chunk_downloader.stage import Downloader
from services.chunk_downloader.streams import Workers
from services.csv_parser.stage import CsvParser

MAX_ROW_BYTES = 200_000
SPEC: dict[str, Any] = {
    "primary_key": ["id"],
    "fields": {"id": "integer", "on": {"type": "date", "nullable": False}, "*": "string"},
}
PLAIN = b"id,on,note\n" + b"".join(b"%d,2024-01-%02d,n%d\n" % (i % 9_000, i % 31 + 1, i % 7) for i in range(10_000))
OBJECTS = {
    "sound": ("a.csv", PLAIN),
    "without a line end": ("a.csv", PLAIN[:-1]),
    "with CR LF and a byte order mark": ("a.csv", b"\xef\xbb\xbf" + PLAIN.replace(b"\n", b"\r\n")),
    "gzip by name and content": ("a.csv.gz", gzip.compress(PLAIN)),
    "gzip by content": ("a.csv", gzip.compress(PLAIN)),
    "damaged gzip": ("a.csv.gz", gzip.compress(PLAIN)[:-5_000]),
    "gzip damaged at the start": ("a.csv.gz", gzip.compress(PLAIN)[:20]),
    "no gzip at all": ("a.csv.gz", PLAIN),
    "empty": ("a.csv", b""),
    "nothing but blank lines": ("a.csv", b"\n\n\r\n"),
    "a header alone": ("a.csv", b"id,on,note\n"),
    "a header without a line end": ("a.csv", b"id,on,note"),
    "another header": ("a.csv", b"a,b\n1,2\n"),
    "a header that names a column twice": ("a.csv", b"id,on,id\n1,2024-01-01,2\n"),
    "latin-1 in the header": ("a.csv", "id,on,größe\n1,2024-01-01,x\n".encode("latin-1")),
    "UTF-16": ("a.csv", "id,on\n1,2024-01-01\n".encode("utf-16")),
    "bad values, ragged rows and blanks": (
        "a.csv",
        b"id,on,note\n1,2024-01-01,a\nx,2024-01-01,b\n\n2,,c\n3,2024-01-01\n4,2024-02-30,d\n1,2024-01-01,a\n",
    ),
    "not UTF-8 in a row": ("a.csv", b"id,on,note\n1,2024-01-01,\xff\n2,2024-01-01,b\n"),
    "newlines in quotes": ("a.csv", b'id,on,note\n1,2024-01-01,"a\nb"\n2,2024-01-01,"c\r\n\r\nd"\n'),
    "a quote never closed": ("a.csv", b'id,on,note\n1,2024-01-01,a\n2,2024-01-01,"b\n3,2024-01-01,c\n'),
    "a record too long": ("a.csv", b"id,on,note\n1,2024-01-01,a\n2,2024-01-01,%b\n3,2024-01-01,c\n" % (b"x" * 300_000)),
}  # fmt: skip


@pytest.fixture(scope="module")
def pools() -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
    with ThreadPoolExecutor(2) as fetching, ThreadPoolExecutor(2) as computing:
        yield fetching, computing


def run(stage: Stage, given: Input) -> list[Step]:
    steps = []
    for step in stage.process(given, None):
        if step is None:
            time.sleep(0.0005)
        else:
            steps.append(step)
    return [*steps, *stage.settle(final=False)]


@pytest.mark.parametrize(("name", "data"), OBJECTS.values(), ids=OBJECTS)
def test_rows_keys_and_letters_are_those_of_the_services(
    name: str, data: bytes, pools: tuple[ThreadPoolExecutor, ThreadPoolExecutor]
) -> None:
    specs, store = Registry(), MemoryStore("lake")
    specs.feed("source/main", orjson.dumps({"s3": {"bucket": "lake"}}))
    specs.feed("dataset/things@1", orjson.dumps(SPEC))
    specs.feed("dataset/things", b'{"version": 1}')
    store.put("lake", name, data)
    ref = ObjectRef("acme", "main", "things", "lake", name, etag_of(data), len(data), "t", "T")
    settings = ChunkDownloaderSettings(chunk_size=64 << 10, block_bytes=64 << 10, memory_budget=64 << 20)
    workers = Workers(*pools, Budget(64 << 20))
    downloader = Downloader(settings, MAX_ROW_BYTES, specs, lambda _: store, 4, workers, Metrics())
    downloaded = run(downloader, Input(At("objects", 0, 0), ref.encode(), {}))
    parser = CsvParser(specs, 4)
    blocks = [emit for step in downloaded for emit in step.emits]
    parsed = [
        step
        for offset, block in enumerate(blocks)
        for step in run(parser, Input(At("blocks", 0, offset), bytes(block.value), block.headers))
    ]
    rows = [row for step in parsed for emit in step.emits for row in read(emit.value).to_pylist()]
    letters = [reject for step in (*downloaded, *parsed) for reject in step.rejects]

    spec = DatasetSpec.model_validate(SPEC)
    pieces = (data[at : at + 65_536] for at in range(0, len(data), 65_536))
    gzipped = bool(data) and is_gzip(name, data)
    done = rehearse(inflate(pieces) if gzipped else pieces, spec, max_row_bytes=MAX_ROW_BYTES)

    expected = {row["_row"]: {k: v for k, v in row.items() if not k.startswith("_")} for row in rows}
    assert dict(zip(done.numbers().tolist(), done.rows().to_pylist(), strict=True)) == expected
    told = Counter((r.reason, str(r.row) if r.row is not None else None, r.column, r.raw) for r in done.refused)
    assert told == Counter(
        (
            r.reason,
            r.facts.get("row") if r.rows else None,
            r.facts.get("column", ""),
            bytes(r.raw),
        )
        for r in letters
    )
    for refusal, letter in zip(done.refused, letters, strict=True):
        assert refusal.message.split(";")[0] in letter.message
    again = repeats(done.rows(), done.numbers(), spec, Owner("acme", "things", (ref.uri, ref.etag)))
    assert len(rows) - len(again) == len({row["_key"] for row in rows})


def test_repeats_name_the_first_row_with_the_key() -> None:
    rows = pa.table({"id": pa.array([1, 2, 1, 1, 2], pa.int64())})
    spec = DatasetSpec.model_validate({"dedupe": {"keys": ["id"]}, "fields": {"id": "integer"}})
    numbers = pa.array([5, 6, 8, 9, 10]).to_numpy()
    found = repeats(rows, numbers, spec, Owner("t", "d", ()))
    assert [(repeat.row, repeat.of) for repeat in found] == [(8, 5), (9, 5), (10, 6)]


def test_of_a_file_read_in_part_the_cut_record_is_left_out() -> None:
    spec = DatasetSpec()
    done = rehearse([PLAIN], spec, max_row_bytes=MAX_ROW_BYTES, most=1_000)
    assert (done.whole, done.nbytes) == (False, 1_000)
    assert done.good == PLAIN[:1_000].count(b"\n") - 1
    assert done.raw(2) == PLAIN.splitlines(keepends=True)[2]
