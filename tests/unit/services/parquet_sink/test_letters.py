"""The lake of dead letters: what a letter looks like as a row, and that each is there once."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from ingestcore.datasets.provenance import source_metadata
from ingestcore.messages.lake import LETTERS_SCHEMA
from ingestcore.reasons import Reason
from ingestcore.stage import Fate, Input, Line
from ingestcore.testing.by_hand import fates, feed, settle
from ingestcore.testing.sink_world import SinkWorld, dead_letter, object_facts
from services.parquet_sink import wiring
from services.parquet_sink.known import ID_BYTES, KnownLetters
from services.parquet_sink.settings import ParquetSinkSettings
from services.parquet_sink.stage import ParquetSink

FACTS = object_facts("bad.csv", tenant="acme", dataset="orders@2")


@pytest.fixture
def world(tmp_path: Path) -> SinkWorld:
    world = SinkWorld(tmp_path / "state", {0: []})
    world.specs.more = {"from": "dlq"}
    return world


def open_sink(world: SinkWorld) -> ParquetSink:
    return world.opened(wiring.open_sink, ParquetSinkSettings())


def deliver(sink: ParquetSink, inputs: Iterable[Input]) -> Counter[Fate]:
    """Feed and write. -> fates."""
    return fates([*feed(sink, *inputs), *settle(sink, final=True)])


def rows(world: SinkWorld) -> list[dict[str, Any]]:
    return [row for data in world.files().values() for row in pq.read_table(io.BytesIO(data)).to_pylist()]


def test_a_letter_is_a_row_with_its_bytes_reason_place_and_provenance(world: SinkWorld) -> None:
    raw = b'1,"\xff\x00'
    letter = dead_letter(5, raw, FACTS, row=42, audience="lake")
    deliver(open_sink(world), [letter])
    assert rows(world) == [
        {
            "id": letter.headers["id"],
            "reason": "VALIDATION_FAIL",
            "retryable": False,
            "message": "amount is no number",
            "stage": "csv-parser",
            "tenant": "acme",
            "source": "src",
            "dataset": "orders",
            "dataset_version": "2",
            "object_uri": "s3://bucket/raw/bad.csv",
            "object_id": FACTS.id,
            "row": 42,
            "rows": 1,
            "column": "amount",
            "value": "x",
            "byte_first": 10,
            "byte_last": 15,
            "raw": raw,
            "topic": "ingest.blocks",
            "partition": 3,
            "offset": 7,
            "reentry": "ingest.blocks",
            "audience": "lake",
            "first_seen": "2023-11-14T12:00:00Z",
            "facts": '{"byte_first":"10","byte_last":"15","column":"amount","row":"42","value":"x"}',
            "_provenance": {
                "observedAt": None,
                "classification": None,
                "parentId": None,
                **source_metadata(FACTS),
                "contentHash": hashlib.sha256(raw).hexdigest(),
            },
        }
    ]
    assert list(world.files()) == [
        "lake/dlq/tenant=acme/ingest_date=2023-11-14/topic-id-0-00000000000000000005-00000000000000000005-v1.parquet"
    ]


def test_a_letter_of_no_object_has_nulls_and_the_default_tenant(world: SinkWorld) -> None:
    letter = dead_letter(0, b"poison", None, reason=Reason.INTERNAL_ERROR, stage="normalizer")
    deliver(open_sink(world), [letter])
    (row,) = rows(world)
    assert [name for name, value in row.items() if value is None] == [
        *("tenant", "source", "dataset", "dataset_version", "object_uri", "object_id", "row", "column", "value"),
        *("byte_first", "byte_last", "audience", "_provenance"),
    ]
    assert "dlq/tenant=default/" in next(iter(world.files()))


@pytest.mark.parametrize(
    ("facts", "row"),
    [({"row": "7"}, 7), ({"row": "7,8,9"}, None), ({"row": "9" * 30}, None), ({"row": "x"}, None), ({}, None)],
)
def test_facts_that_are_no_numbers_stay_readable_as_text(
    world: SinkWorld, facts: dict[str, str], row: int | None
) -> None:
    deliver(open_sink(world), [dead_letter(0, b"", FACTS, place=facts)])
    (found,) = rows(world)
    assert (found["row"], orjson.loads(found["facts"])) == (row, facts)


def test_a_quarantined_range_says_how_many_rows_it_stands_for(world: SinkWorld) -> None:
    letter = dead_letter(0, b"x" * 65536, FACTS, rows=5000, reason=Reason.QUARANTINED)
    assert deliver(open_sink(world), [letter]) == {Fate.DELIVERED: 1}
    assert [row["rows"] for row in rows(world)] == [5000]


def test_the_ledger_line_names_the_object(world: SinkWorld) -> None:
    sink = open_sink(world)
    list(sink.process(dead_letter(3, b"x", FACTS), None))
    (step,) = sink.settle(final=True)
    line: Line = step.tally[0]
    assert (line.origin.id, line.origin.tenant, line.origin.dataset, line.rows) == (FACTS.id, "acme", "orders@2", 1)


def test_all_files_have_the_same_columns(world: SinkWorld) -> None:
    sink = open_sink(world)
    deliver(sink, [dead_letter(0, b"x", FACTS)])
    deliver(sink, [dead_letter(1, b"y", None)])
    schemas = [pq.read_schema(io.BytesIO(data)).remove_metadata() for data in world.files().values()]
    assert schemas == [LETTERS_SCHEMA, LETTERS_SCHEMA]


# -- each letter once


def test_a_letter_produced_again_is_a_duplicate(world: SinkWorld) -> None:
    sink = open_sink(world)
    assert deliver(sink, [dead_letter(0, b"x", FACTS, row=1), dead_letter(1, b"x", FACTS, row=2)])[Fate.DELIVERED] == 2
    assert deliver(sink, [dead_letter(2, b"x", FACTS, row=1)]) == {Fate.DUPLICATE: 1}
    assert deliver(open_sink(world), [dead_letter(3, b"x", FACTS, row=2)]) == {Fate.DUPLICATE: 1}
    assert len(rows(world)) == 2


def test_a_letter_that_comes_twice_before_it_is_written_is_written_once(world: SinkWorld) -> None:
    letters = [dead_letter(n, b"x", FACTS, row=row) for n, row in enumerate([1, 2, 1, 1])]
    assert deliver(open_sink(world), letters) == {Fate.DELIVERED: 2, Fate.DUPLICATE: 2}
    assert [row["row"] for row in rows(world)] == [1, 2]
    assert deliver(open_sink(world), letters) == {Fate.DELIVERED: 2, Fate.DUPLICATE: 2}, "a reset tells the same"


def test_letters_are_known_after_the_topic_was_made_anew(world: SinkWorld) -> None:
    deliver(open_sink(world), [dead_letter(0, b"x", FACTS, row=1)])
    world.topics.id = "another"
    letters = [dead_letter(0, b"x", FACTS, row=1), dead_letter(1, b"x", FACTS, row=2)]
    assert deliver(open_sink(world), letters) == {Fate.DUPLICATE: 1, Fate.DELIVERED: 1}
    assert sorted(row["row"] for row in rows(world)) == [1, 2]


def test_an_owner_that_was_replaced_drops_letters_its_successor_wrote_from_other_offsets(world: SinkWorld) -> None:
    frozen, successor = open_sink(world), open_sink(world)
    for letter in (dead_letter(0, b"x", FACTS, row=1), dead_letter(1, b"x", FACTS, row=2)):
        list(frozen.process(letter, None))
    world.topics.inputs[0] = [dead_letter(n, b"x", FACTS, row=n + 1) for n in range(2)]
    deliver(successor, [dead_letter(9, b"x", FACTS, row=1)])
    assert deliver(frozen, []) == {Fate.DUPLICATE: 1, Fate.DELIVERED: 1}
    assert sorted(row["row"] for row in rows(world)) == [1, 2]


def test_only_letters_of_its_datasets_reach_a_sink_and_those_of_none(world: SinkWorld) -> None:
    world.specs.more |= {"datasets": ["orders"]}
    other = object_facts("a", dataset="visits@1")
    letters = [dead_letter(0, b"", FACTS), dead_letter(1, b"", other), dead_letter(2, b"", None)]
    assert deliver(open_sink(world), letters) == {Fate.DELIVERED: 2, Fate.NOT_FOR_US: 1}


def test_nothing_but_parquet_is_put_below_the_table(world: SinkWorld) -> None:
    deliver(open_sink(world), [dead_letter(0, b"", FACTS)])
    assert {key.split("/")[1] for key in world.bucket.objects} == {"_ingest", "dlq"}
    assert all(key.endswith(".parquet") for key in world.bucket.keys("/dlq/tenant="))


def test_ids_are_known_however_many_there_are(world: SinkWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that end in zero bytes, and after they were sorted away."""
    monkeypatch.setattr("services.parquet_sink.known._RECENT", 10)
    ids = [n.to_bytes(2, "big") + bytes(ID_BYTES - 2) for n in range(0, 100, 2)]
    known = KnownLetters(open_sink(world)._owned[0].claims, [])
    for start in range(0, len(ids), 7):
        known._recent.update(ids[start : start + 7])
        known._merge()
    assert all(id in known for id in ids)
    assert not any(n.to_bytes(2, "big") + bytes(ID_BYTES - 2) in known for n in range(1, 100, 2))
