"""Looking into a platform that runs: `tap`, `topics` and `ledger` over a small fleet on real servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from ingestcore.kafka import admin
from ingestcore.testing.fleet import LocalFleet

pytestmark = pytest.mark.integration

DATASET = {"primary_key": ["id"], "fields": {"id": "integer", "name": "string"}}
FIRST = b"id,name\n1,one\n2,two\nthree,bad\n4,four\n"
SECOND = b"id,name\n2,two\n5,five\n"


@pytest.fixture(scope="module")
def fleet(make_fleet: Callable[..., LocalFleet]) -> LocalFleet:
    """Two objects: four rows published, one duplicate, one dead letter."""
    fleet = make_fleet()
    fleet.up({"sources": {fleet.name: fleet.source(dataset="items")}, "datasets": {"items": DATASET}})
    fleet.upload("first.csv", FIRST)
    fleet.settled(1)
    fleet.upload("second.csv", SECOND)
    fleet.settled(2)
    fleet.quiet()
    return fleet


def tapped(fleet: LocalFleet, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in fleet.ingest("tap", *arguments).splitlines()]


def committed(fleet: LocalFleet) -> dict[tuple[str, tuple[str, int]], int]:
    client = admin.open_admin(fleet.platform())
    groups = [f"{fleet.name}-{name}" for name in ("chunk-downloader", "csv-parser", "normalizer", "lake", "dlq")]
    return {(g, place): offset for g in groups for place, offset in admin.committed(client, g).items()}


def test_normalized_rows_are_typed_lines(fleet: LocalFleet) -> None:
    rows = tapped(fleet, "normalized")
    assert sorted((line["row"]["id"], line["row"]["name"]) for line in rows) == [
        (1, "one"),
        (2, "two"),
        (4, "four"),
        (5, "five"),
    ]
    line = next(line for line in rows if line["row"]["id"] == 5)
    assert line["row"]["_object"]["uri"] == line["row"]["_provenance"]["sourceUri"]
    assert len(bytes.fromhex(line["row"]["_key"])) == 16
    assert line["headers"]["dataset"] == "items@1"


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (("--where", "id=2"), [2, 2]),
        (("--where", "id=2", "--object", "second.csv"), [2]),
        (("--dataset", "items@1", "--where", "name=four"), [4]),
        (("--dataset", "others"), []),
        (("--header", "dataset=items@1", "--limit", "1", "--where", "id=1"), [1]),
        (("--from", "1h", "--where", "id=5"), [5]),
        (("--from", "latest"), []),
    ],
)
def test_filters(fleet: LocalFleet, arguments: tuple[str, ...], ids: list[int]) -> None:
    assert [line["row"]["id"] for line in tapped(fleet, "typed", *arguments)] == ids


def test_one_partition_from_an_offset(fleet: LocalFleet) -> None:
    some = tapped(fleet, f"{fleet.name}.typed", "--where", "id=5")[0]
    partition, offset = str(some["partition"]), some["offset"]
    found = tapped(fleet, "typed", "--partition", partition, "--from", str(offset), "--records", "--limit", "1")
    assert [(r["partition"], r["offset"], r["rows"] >= 1) for r in found] == [(some["partition"], offset, True)]
    assert not tapped(fleet, "typed", "--partition", partition, "--from", str(offset + 1), "--where", "id=5")


def test_blocks_are_the_bytes_of_the_objects(fleet: LocalFleet) -> None:
    texts = [line["row"]["text"] for line in tapped(fleet, "blocks", "--object", "first.csv")]
    assert texts == ["1,one", "2,two", "three,bad", "4,four"]
    raw = fleet.ingest("tap", "blocks", "--object", "second.csv", "--raw")
    assert raw.encode() == SECOND.removeprefix(b"id,name\n")


def test_every_topic_can_be_looked_at(fleet: LocalFleet) -> None:
    (letter,) = tapped(fleet, "dlq", "--where", "reason=VALIDATION_FAIL")
    assert (letter["value"]["row"], letter["value"]["raw"]) == ("3", "three,bad\n")
    assert {line["value"]["key"] for line in tapped(fleet, "objects")} == {"raw/first.csv", "raw/second.csv"}
    assert {line["key"] for line in tapped(fleet, "config")} >= {"dataset/items@1", "dataset/items", "sink/lake"}
    keys = {line["row"]["_key"] for line in tapped(fleet, "dedupe-changelog")}
    assert keys == {line["row"]["_key"] for line in tapped(fleet, "normalized")}
    stages = {line["value"]["stage"] for line in tapped(fleet, "ledger", "--where", "entries.topic=typed")}
    assert stages == {"normalizer"}


def test_no_group_is_joined_and_no_offset_moves(fleet: LocalFleet) -> None:
    before = committed(fleet)
    for topic in ("objects", "blocks", "typed", "normalized", "dlq", "ledger"):
        tapped(fleet, topic)
    assert committed(fleet) == before
    client = admin.open_admin(fleet.platform())
    listed: Any = client.list_consumer_groups().result(20)
    own = {group.group_id for group in listed.valid if group.group_id.startswith(f"{fleet.name}-")}
    assert own == {f"{fleet.name}-{name}" for name in ("chunk-downloader", "csv-parser", "normalizer", "lake", "dlq")}


def test_follow_goes_on_until_it_is_interrupted(fleet: LocalFleet) -> None:
    command = fleet.command("tap", "objects", "--follow")
    process = subprocess.Popen(command, env=fleet.environ(), stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(3)  # it begins at the end
        fleet.upload("third.csv", b"id,name\n6,six\n")
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["value"]["key"] == "raw/third.csv"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
    fleet.settled(3)


def test_the_ledger_by_source_and_time(fleet: LocalFleet) -> None:
    def objects(*arguments: str) -> int:
        return len(json.loads(fleet.ingest("ledger", "--json", *arguments))["objects"])

    assert objects("--source", fleet.name, "--since", "1h") == objects() >= 2
    assert objects("--source", "another") == objects("--since", "2100-01-01") == 0


def test_topics_have_the_registrys_copies_and_a_size(fleet: LocalFleet) -> None:
    told = json.loads(fleet.ingest("topics", "--json"))
    found = {topic["topic"].removeprefix(f"{fleet.name}."): topic for topic in told["topics"]}
    assert {(topic["replication"], topic["min_insync_replicas"]) for topic in found.values()} == {(1, 1)}
    # Nobody posts events here.
    assert [name for name, topic in found.items() if not topic["disk_bytes"]] == ["events"]
    assert found["blocks"]["disk_bytes"] < 10_000
    assert told["total"]["disk_bytes"] == sum(topic["disk_bytes"] for topic in found.values())


def test_a_mistyped_name_is_told_with_the_closest_one(fleet: LocalFleet) -> None:
    done = fleet.ran("tap", "normalised")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"the closest is {fleet.name}.normalized" in done.stderr
