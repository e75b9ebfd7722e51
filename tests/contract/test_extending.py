"""The worked examples of docs/extending.md keep the contract of stages and sources."""

from __future__ import annotations

import collections
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pyarrow as pa
import pytest

from ingestcore.messages import rows
from ingestcore.messages.objects import ObjectRef
from ingestcore.observe.metrics import Metrics
from ingestcore.runtime.service import Context, Service, discover
from ingestcore.settings import Platform
from ingestcore.stage import OperatorNeeded, Source, check
from ingestcore.testing.harness import Committed, drive
from ingestcore.testing.installed import installed
from ingestcore.testing.memory_store import MemoryStore
from ingestcore.testing.seeds import seeds
from ingestcore.testing.stage_chain import PARTITIONS, Chain, CommittedTopics, registry

EXTRAS = Path(__file__).parents[2] / "examples" / "extending"


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Service]:
    for place in installed(EXTRAS, tmp_path / "site"):
        monkeypatch.syspath_prepend(place)
    return discover()


def context(service: Service, settings: Any, topics: Any, state: Path, store: MemoryStore) -> Context:
    platform = Platform(partitions=PARTITIONS)
    return Context(platform, settings, service.name, registry(), topics, Metrics(), state, lambda _: store)


@pytest.mark.parametrize("seed", seeds(3, 12))
def test_the_sink_writes_every_row_once_whatever_is_aborted_and_killed(
    chain: Chain, services: dict[str, Service], tmp_path: Path, seed: int
) -> None:
    inputs, service = chain.inputs["parquet-sink"], services["jsonl-sink"]
    folder = tmp_path / "rows"

    def make(committed: Committed) -> Any:
        settings = service.settings(folder=folder)  # type: ignore[call-arg]
        return service.build(context(service, settings, CommittedTopics(committed, inputs), tmp_path, MemoryStore()))

    run = drive(make, inputs, seed, fault_rate=0.1)
    found = collections.Counter(
        (path.parent.name, line) for path in folder.glob("*/*.jsonl") for line in path.read_bytes().splitlines()
    )
    wanted: collections.Counter[Any] = collections.Counter()
    for input in (i for many in inputs.values() for i in many):
        batch = rows.read(input.value)
        own = batch.select([n for n in batch.schema.names if not n.startswith("_")])
        dataset = input.headers["dataset"].partition("@")[0]
        wanted.update((dataset, orjson.dumps(row, default=str)) for row in pa.Table.from_batches([own]).to_pylist())
    assert found == wanted and len(wanted) > 1_000
    assert sum(line.rows for line in run.tally) == wanted.total()
    drive(make, inputs, seed + 1)
    assert sum(1 for path in folder.glob("*/*.jsonl") for _ in path.read_bytes().splitlines()) == wanted.total()


@pytest.fixture
def manifest(services: dict[str, Service], tmp_path: Path) -> tuple[Source, Path, MemoryStore]:
    service, store, file = services["manifest-source"], MemoryStore("raw"), tmp_path / "manifest.txt"
    settings = service.settings(file=file, source="s")  # type: ignore[call-arg]
    opened: Any = service.build(context(service, settings, SimpleNamespace(), tmp_path, store))
    return opened("manifest"), file, store


def scanned(source: Source, *, killed: bool = False) -> list[str]:
    """One pass as the runtime makes it: a step's objects are in Kafka, then the checkpoint moves. -> their keys."""
    found = []
    for step in source.scan():
        assert step is not None
        check(step)
        assert {emit.topic for emit in step.emits} <= {"objects"}
        found += [ObjectRef.decode(bytes(emit.value)).key for emit in step.emits]
        if killed:
            return found
        source.acknowledged(step.resume)
    return found


def test_the_source_hands_on_each_line_and_repeats_only_what_a_crash_interrupted(
    manifest: tuple[Source, Path, MemoryStore],
) -> None:
    source, file, store = manifest
    store.put("raw", "a.csv", b"id\n1\n")
    store.put("raw", "b.csv", b"id\n2\n")
    file.write_text("s3://raw/a.csv\ns3://raw/missing.csv\n")
    assert scanned(source, killed=True) == ["a.csv"]
    assert scanned(source) == ["a.csv"]
    assert scanned(source) == []
    with file.open("a") as more:
        more.write("s3://raw/b.csv\n")
    assert scanned(source) == ["b.csv"]
    assert source.status() == {"lines_done": 3, "skipped": ["s3://raw/missing.csv"] * 2}


def test_a_manifest_that_is_not_there_is_for_the_operator(manifest: tuple[Source, Path, MemoryStore]) -> None:
    with pytest.raises(OperatorNeeded, match="INGEST_MANIFEST_SOURCE_FILE"):
        manifest[0].check()
