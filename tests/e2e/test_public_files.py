"""Five public files through a running fleet: every row arrives, once, with the right types."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingestcore.kafka import admin
from ingestcore.ledger import State
from ingestcore.testing.fleet import LocalFleet

pytestmark = [pytest.mark.integration, pytest.mark.shared_data]

DATASETS: dict[str, Any] = {
    "zipcodes": {
        "primary_key": ["zip_code"],
        "fields": {"zip_code": {"type": "string", "length": 5}, "latitude": "float", "*": "string"},
    },
    "strikes": {
        "dedupe": {"keys": "all"},
        "fields": {"cost_total": {"from": "Cost Total $", "type": "integer"}, "*": "string"},
        "on_extra": "freeze",
    },
    "airports": {"primary_key": ["iata"]},
    "species": {"primary_key": ["item_id", "county_id"]},
    "weather": {
        "primary_key": ["location", "date"],
        "fields": {"date": "date", "temp_max": "float", "temp_min": "float", "wind": "float", "*": "string"},
    },
}
ROUTE = {
    "zip*.csv": "zipcodes",
    "bird*.csv*": "strikes",
    "airports*.csv": "airports",
    "species*.csv": "species",
    "weather*.csv": "weather",
}
ROWS = {"zipcodes": 42_049, "strikes": 9_976, "airports": 3_376, "species": 12_360, "weather": 2_922}
FILES = ("zipcodes.csv", "birdstrikes.csv", "airports.csv", "species.csv", "weather.csv")


@pytest.fixture(scope="module")
def fleet(make_fleet: Callable[..., LocalFleet], shared_data: Path) -> LocalFleet:
    """A fleet that has taken the five files."""
    fleet = make_fleet()
    source = fleet.source(route=ROUTE, provenance={"purpose": "INV-7", "ingestedBy": "data-eng"})
    fleet.up({"sources": {fleet.name: source}, "datasets": DATASETS})
    for name in FILES:
        fleet.upload(name, shared_data / name)
    fleet.settled(len(FILES))
    return fleet


def counts(fleet: LocalFleet) -> dict[str, int]:
    connection = fleet.connection()
    return {name: fleet.rows(connection, name).shape[0] for name in ROWS}


def test_every_row_arrives_once_and_the_ledger_balances(fleet: LocalFleet) -> None:
    assert counts(fleet) == ROWS
    found = fleet.settled(len(FILES))
    assert {o.state for o in found.objects} == {State.BALANCED}
    assert {o.published for o in found.objects} == set(ROWS.values())
    assert fleet.ingest("ledger", "--unbalanced").strip() == "No objects."


def test_values_are_read_right(fleet: LocalFleet) -> None:
    connection = fleet.connection()
    zips = fleet.rows(connection, "zipcodes")
    assert zips.filter("length(zip_code) <> 5").shape[0] == 0
    assert zips.filter("zip_code = '00501'").project("city, latitude").fetchall() == [("Holtsville", 40.922326)]
    strikes = fleet.rows(connection, "strikes").aggregate("typeof(any_value(cost_total)), sum(cost_total) > 0")
    assert strikes.fetchall() == [("BIGINT", True)]
    assert fleet.rows(connection, "airports").filter("contains(name, ',')").shape[0] > 0
    days = fleet.rows(connection, "weather").aggregate("typeof(any_value(date)), min(date)::VARCHAR")
    assert days.fetchall() == [("DATE", "2012-01-01")]


def test_every_row_says_where_it_comes_from(fleet: LocalFleet) -> None:
    rows = fleet.rows(fleet.connection(), "zipcodes")
    told = rows.aggregate(
        "count(DISTINCT _row), min(_row), max(_row), any_value(_provenance.purpose), "
        "any_value(_provenance.ingestedBy), any_value(_provenance.sourceUri)"
    )
    assert told.fetchall() == [(42_049, 1, 42_049, "INV-7", "data-eng", f"s3://{fleet.bucket}/raw/zipcodes.csv")]


def test_the_same_files_under_other_keys_change_nothing(fleet: LocalFleet, shared_data: Path) -> None:
    for name in FILES:
        fleet.upload(name.replace(".csv", "-again.csv"), shared_data / name)
    found = fleet.settled(2 * len(FILES))
    assert counts(fleet) == ROWS
    again = [o for o in found.objects if "-again" in o.origin.uri]
    assert [(o.published, o.state) for o in again] == [(0, State.BALANCED)] * len(FILES)


def test_a_sixth_dataset_is_added_while_all_runs(fleet: LocalFleet) -> None:
    before = {label: row.pid for label, row in fleet.processes().items()}
    listed = len(fleet.settled(len(FILES)).objects)
    source = fleet.source(route={**ROUTE, "sixth*.csv": "sixth"})
    dataset = {"primary_key": ["id"], "fields": {"id": "integer", "name": "string"}}
    fleet.apply({"sources": {fleet.name: source}, "datasets": {"sixth": dataset}})
    fleet.upload("sixth.csv", b"id,name\n1,one\n2,two\nthree,bad\n2,two\n")
    fleet.settled(listed + 1)
    connection = fleet.connection()
    assert fleet.rows(connection, "sixth").project("id, name").order("id").fetchall() == [(1, "one"), (2, "two")]
    fleet.quiet()
    (letter,) = fleet.letters(connection, ("dataset", "row", "reason", "column", "raw"))
    assert letter == ("sixth", 3, "VALIDATION_FAIL", "id", b"three,bad\n")
    assert {label: row.pid for label, row in fleet.processes().items()} == before


def test_keys_that_no_pattern_matches_are_listed_in_status(fleet: LocalFleet) -> None:
    fleet.upload("nobody wants this.txt", b"x")
    deadline = time.monotonic() + 60
    while True:
        (source,) = json.loads(fleet.ingest("status", "--json"))["sources"].values()
        if source["unmatched"]:
            break
        assert time.monotonic() < deadline, source
    assert source["unmatched_examples"] == ["raw/nobody wants this.txt"]
    assert "nobody wants this.txt" in fleet.ingest("status")


def test_nothing_passes_between_services_but_kafka(fleet: LocalFleet) -> None:
    rows = fleet.processes()
    assert len({row.pid for row in rows.values()}) == len(rows) == 6
    ends = {name: sum(state.end_offsets) for name, state in admin.describe(fleet.platform()).items()}
    assert [name for name, end in ends.items() if not end] == ["events"], ends
