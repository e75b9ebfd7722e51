"""One row followed back to its bytes and forward to the lake, over a small fleet on real servers."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from ingestcore.kafka import admin
from ingestcore.testing.fleet import LocalFleet

pytestmark = pytest.mark.integration

DATASET = {"primary_key": ["id"], "fields": {"id": "integer", "name": "string"}}
FIRST = b'id,name\n1,one\n2,"tw\no"\nthree,bad\n\n4,four\n'
AGAIN = b'id,name\n2,"tw\no"\n'
PACKED = b"id,name\n7,seven\n8,eight\n"


@pytest.fixture(scope="module")
def fleet(make_fleet: Callable[..., LocalFleet]) -> LocalFleet:
    fleet = make_fleet()
    fleet.up({"sources": {fleet.name: fleet.source(dataset="items")}, "datasets": {"items": DATASET}})
    fleet.upload("first.csv", FIRST)
    fleet.upload("packed.csv.gz", gzip.compress(PACKED))
    fleet.settled(2)
    fleet.upload("again.csv", AGAIN)
    fleet.settled(3)
    fleet.quiet()
    return fleet


def traced(fleet: LocalFleet, *arguments: str, exit_code: int = 0) -> list[dict[str, Any]]:
    told = json.loads(fleet.ingest("trace", *arguments, "--json", exit_code=exit_code))
    rows: list[dict[str, Any]] = told["rows"]
    return rows


def uri(fleet: LocalFleet, name: str) -> str:
    return f"s3://{fleet.bucket}/raw/{name}"


def refused(fleet: LocalFleet, *arguments: str) -> tuple[int, str]:
    done = fleet.ran("trace", *arguments)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_a_published_row_back_to_its_bytes_and_forward_to_its_file(fleet: LocalFleet) -> None:
    (row,) = traced(fleet, uri(fleet, "first.csv"), "2")
    assert (row["fate"], row["notes"]) == ("published", [])
    first = FIRST.index(b"2,")
    assert row["raw"] == {"first": first, "last": first + 9, "data": '2,"tw\no"\n', "found_in": "its block"}
    assert row["s3"] == "there, the same bytes"
    digest = hashlib.sha256(FIRST).hexdigest()
    assert row["hash"] == {"segment": 0, "recorded": digest, "computed": digest, "matches": True}
    assert len(row["typed"]) == len(row["normalized"]) == 1
    assert row["typed"][0]["partition"] == row["normalized"][0]["partition"]
    (held,) = row["lake"]
    connection = fleet.connection()
    found = connection.sql(f"SELECT id, _row FROM read_parquet('{held['file']}') WHERE _row = 2 AND id = 2").fetchall()
    assert found == [(2, 2)]


def test_the_same_in_words(fleet: LocalFleet) -> None:
    text = fleet.ingest("trace", "first.csv", "1")
    assert "fate         published" in text
    assert "verified" in text
    assert text.splitlines()[0] == f"row          1 of {uri(fleet, 'first.csv')}"


def test_a_compressed_object(fleet: LocalFleet) -> None:
    (row,) = traced(fleet, "packed.csv.gz", "2")
    assert (row["fate"], row["s3"], row["hash"]["matches"]) == ("published", "there, the same bytes", True)
    assert row["raw"]["data"] == "8,eight\n"
    assert row["hash"]["computed"] == hashlib.sha256(PACKED).hexdigest()


def test_a_refused_row_and_its_dead_letter(fleet: LocalFleet) -> None:
    (row,) = traced(fleet, "first.csv", "3")
    assert (row["fate"], row["why"]) == ("dead letter", "VALIDATION_FAIL")
    assert [(letter["reason"], letter["stage"]) for letter in row["letters"]] == [("VALIDATION_FAIL", "csv-parser")]
    assert (row["typed"], row["lake"]) == ([], [])
    assert row["raw"]["data"] == "three,bad\n"


def test_a_blank_line(fleet: LocalFleet) -> None:
    assert traced(fleet, "first.csv", "4")[0]["fate"] == "blank"


def test_a_duplicate_and_the_row_that_was_published(fleet: LocalFleet) -> None:
    (row,) = traced(fleet, "again.csv", "1")
    assert row["fate"] == "duplicate"
    assert (row["first"]["uri"], row["first"]["row"]) == (uri(fleet, "first.csv"), 2)
    assert (row["normalized"], row["lake"]) == ([], [])


def test_by_key_and_by_values_all_rows_that_share_it(fleet: LocalFleet) -> None:
    (row,) = traced(fleet, "first.csv", "2")
    by_key = traced(fleet, row["key"])
    by_value = traced(fleet, "--dataset", "items", "--key", "id=2")
    for found in (by_key, by_value):
        named = {(r["uri"], r["row"], r["fate"]) for r in found}
        assert named == {(uri(fleet, "first.csv"), 2, "published"), (uri(fleet, "again.csv"), 1, "duplicate")}
    assert len(traced(fleet, "--dataset", "items", "--key", "id=2", "--limit", "1")) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nothing.csv", "1"), 1, "no object 'nothing.csv' was listed"),
        ((".csv", "1"), 2, "fits 3 objects"),
        (("0" * 32,), 1, "no row with key"),
        (("--dataset", "items", "--key", "id=99"), 1, "no row with id=99 in items"),
        (("--dataset", "items", "--key", "ib=1"), 1, "no row has a column ib"),
        (("first.csv",), 2, "say the row"),
        ((), 2, "name one row"),
    ],
)
def test_what_is_not_there_is_said(fleet: LocalFleet, arguments: tuple[str, ...], code: int, words: str) -> None:
    found, text = refused(fleet, *arguments)
    assert found == code
    assert words in text


def test_a_row_behind_the_end(fleet: LocalFleet) -> None:
    (row,) = traced(fleet, "first.csv", "99", exit_code=1)
    assert row["s3"] == "there, and no row 99 is to be found in it"
    assert row["fate"] == "unknown"


def test_a_replaced_object_is_said_to_be_gone_and_its_older_version_can_be_asked_for(fleet: LocalFleet) -> None:
    fleet.upload("again.csv", b"id,name\n9,nine\n")
    fleet.settled(4)
    fleet.quiet()
    (new,) = traced(fleet, "again.csv", "1")
    assert (new["fate"], new["raw"]["data"]) == ("published", "9,nine\n")
    older = new["notes"][0].partition("`ingest trace ")[2].split()[0]
    (old,) = traced(fleet, older, "1")
    assert (old["fate"], old["raw"]["data"]) == ("duplicate", '2,"tw\no"\n')
    assert "the object was replaced" in old["s3"]


def test_what_retention_has_removed_is_said_and_the_rest_is_used(fleet: LocalFleet) -> None:
    """Last: it empties the topics."""
    client = admin.open_admin(fleet.platform())
    states = admin.describe(fleet.platform())
    for topic in ("blocks", "typed", "normalized", "dlq"):
        ends = [TopicPartition(states[topic].name, p, end) for p, end in enumerate(states[topic].end_offsets)]
        for future in client.delete_records(ends).values():
            future.result(20)
    (row,) = traced(fleet, "packed.csv.gz", "1")
    assert row["raw"] == {"first": 8, "last": 16, "data": "7,seven\n", "found_in": "S3, read from its beginning"}
    assert (row["fate"], row["why"]) == ("published", "it is in the lake")
    assert len(row["lake"]) == 1
    assert any("retention has removed" in note and "blocks" in note for note in row["notes"])
    (letter,) = traced(fleet, "first.csv", "3")
    assert letter["fate"] == "dead letter"
    assert letter["letters"][0]["file"].startswith(f"{fleet.uri}dlq/")
    (found,) = traced(fleet, "--dataset", "items", "--key", "id=4")
    assert (found["uri"], found["row"], found["fate"]) == (uri(fleet, "first.csv"), 5, "published")
    # Listing and ledger gone, too: the lake still knows where the row comes from.
    for topic in ("objects", "ledger"):
        ends = [TopicPartition(states[topic].name, p, -1) for p in range(states[topic].partitions)]
        for future in client.delete_records(ends).values():
            future.result(20)
    (alone,) = traced(fleet, uri(fleet, "packed.csv.gz"), "2")
    assert (alone["fate"], alone["raw"]["data"], alone["hash"]["matches"]) == ("published", "8,eight\n", True)
    assert any("neither listing nor ledger know" in note for note in alone["notes"])
