"""Keys that look like paths out of their folder, from the listing to the rows: S3 knows no folders, so they are names.

The dev stack's S3 server refuses such keys (and normalises paths), so the stores here are the stand-ins in memory; that
they travel to a server as they are is shown beside the S3 store.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from ingestcore.datasets.registry import Registry
from ingestcore.messages.rows import OBJECT, read
from ingestcore.observe.metrics import Metrics
from ingestcore.runtime.service import Context
from ingestcore.settings import Platform
from ingestcore.stage import At, Emit, Input
from ingestcore.testing.lister_world import Clock, MemoryLeases, MemoryStore, Replica, Topic
from services.chunk_downloader.parts import Budget
from services.chunk_downloader.settings import ChunkDownloaderSettings
from services.chunk_downloader.stage import Downloader
from services.chunk_downloader.streams import Workers
from services.csv_parser.stage import CsvParser
from services.s3_lister.settings import ListerSettings
from services.s3_lister.source import Lister

KEYS = ("../x", "../../etc/passwd", "raw/../x", "./y", "raw/./y", "..", "/abs", "raw//z")


@pytest.fixture
def specs() -> Registry:
    made = Registry({})
    made.feed("source/s", orjson.dumps({"s3": {"bucket": "lake"}, "dataset": "rows"}))
    made.feed("dataset/rows@1", b"{}")
    made.feed("dataset/rows", b'{"version": 1}')
    return made


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    made.buckets["work"] = {}
    for key in KEYS:
        made.add("lake", key, b"id\n%s\n" % key.encode())
    return made


def listed(specs: Registry, store: MemoryStore, folder: Path) -> Topic:
    clock, topic, nothing = Clock(), Topic(), SimpleNamespace()
    platform: Any = Platform(work_uri="s3://work/w")
    context = Context(
        platform,
        ListerSettings(),
        "s3-lister",
        specs,
        nothing,
        Metrics(),
        folder,
        lambda _: store,  # type: ignore[arg-type]
    )
    lister = Lister("s", context, MemoryLeases(clock), now=clock.now, monotonic=clock.monotonic, renew_beside=False)
    Replica(lister, topic).finish_pass()
    return topic


def emitted(stage: Any, inputs: list[Input]) -> Iterator[Emit]:
    for input in inputs:
        for step in stage.process(input, None):
            yield from step.emits if step else ()
    for step in stage.settle(final=True):
        yield from step.emits


def as_inputs(topic: str, emits: Iterator[Emit]) -> list[Input]:
    return [
        Input(At(topic, 0, number), bytes(e.value), {**e.headers, "rows": str(e.rows)})
        for number, e in enumerate(emits)
    ]


def test_a_key_that_looks_like_a_way_out_is_a_name_like_any_other(
    specs: Registry, store: MemoryStore, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    topic = listed(specs, store, folder)
    assert sorted(topic.found()) == sorted(KEYS)
    assert len(set(topic.ids())) == len(KEYS)

    with ThreadPoolExecutor(2) as fetching, ThreadPoolExecutor(2) as computing:
        workers = Workers(fetching, computing, Budget(256 << 20))
        downloader = Downloader(ChunkDownloaderSettings(), 1 << 20, specs, lambda _: store, 1, workers, Metrics())
        objects = [Input(At("objects", 0, n), ref.encode(), {}) for n, ref in enumerate(topic.objects)]
        blocks = as_inputs("blocks", emitted(downloader, objects))
    rows = list(emitted(CsvParser(specs, 1), blocks))
    found = {}
    for emit in rows:
        batch = read(bytes(emit.value))
        uris = [orjson.loads(text)["uri"] for text in batch.column(OBJECT).to_pylist()]
        found |= dict(zip(uris, batch.column("id").to_pylist(), strict=True))
    assert found == {f"s3://lake/{key}": key for key in KEYS}
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing on disk is named after a key"
