"""A stranger's Monday: five files in a bucket, nothing known about them, and rows in the lake a few commands later."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ingestcore.ledger import State
from ingestcore.testing.fleet import LocalFleet

pytestmark = [pytest.mark.integration, pytest.mark.shared_data]

ROWS = {"zipcodes": 42_049, "birdstrikes": 9_976, "airports": 3_376, "species": 12_360, "weather": 2_922}
"""What comes out, once each: 24 of the 10,000 bird strikes repeat an earlier one in every column."""


@pytest.fixture(scope="module")
def fleet(make_fleet: Callable[..., LocalFleet], shared_data: Path) -> LocalFleet:
    """A fleet that runs and has no source yet; the files lie in its bucket."""
    fleet = make_fleet()
    for name in ROWS:
        fleet.upload(f"{name}.csv", shared_data / f"{name}.csv")
    fleet.up()
    return fleet


@pytest.fixture(scope="module")
def config(fleet: LocalFleet) -> Path:
    """What `ingest infer` writes of the bucket; no edit follows."""
    path = fleet.folder / "monday.yaml"
    fleet.ingest("infer", f"s3://{fleet.bucket}/raw/", "--sink", fleet.uri, "-o", str(path))
    return path


def test_what_is_inferred_says_what_the_files_are(fleet: LocalFleet, config: Path) -> None:
    told = json.loads(fleet.ingest("infer", f"s3://{fleet.bucket}/raw/", "--sink", fleet.uri, "--json"))
    assert told["yaml"] == config.read_text()
    found = {dataset["name"]: dataset for dataset in told["datasets"]}
    keys = {name: dataset["primary_key"] for name, dataset in found.items()}
    assert keys == {
        "zipcodes": ["zip_code"], "birdstrikes": [], "airports": ["iata"], "species": ["item_id", "county_id"],
        "weather": [],
    }  # fmt: skip
    types = {name: {c["name"]: c["type"] for c in dataset["columns"]} for name, dataset in found.items()}
    assert types["zipcodes"]["zip_code"] == types["species"]["county_id"] == "string"
    assert types["zipcodes"]["latitude"] == types["weather"]["temp_max"] == "float"
    assert types["weather"]["date"] == types["birdstrikes"]["flight_date"] == "date"
    assert types["birdstrikes"]["cost_total"] == "integer"


def test_every_file_previews_as_it_will_come_out(fleet: LocalFleet, config: Path) -> None:
    assert json.loads(validated(config))["valid"]
    for name, rows in ROWS.items():
        uri = f"s3://{fleet.bucket}/raw/{name}.csv"
        told = json.loads(fleet.ingest("preview", uri, "--config", str(config), "--json"))
        assert (told["dataset"], told["totals"]["published"], told["totals"]["refused"]) == (name, rows, 0)


def test_applied_as_it_is_every_row_arrives_once(fleet: LocalFleet, config: Path) -> None:
    fleet.ingest("apply", str(config))
    found = fleet.settled(len(ROWS))
    assert {o.state for o in found.objects} == {State.BALANCED}
    connection = fleet.connection()
    assert {name: fleet.rows(connection, name).shape[0] for name in ROWS} == ROWS
    zips = fleet.rows(connection, "zipcodes")
    assert zips.filter("length(zip_code) = 5").shape[0] == ROWS["zipcodes"]
    assert zips.filter("zip_code = '00501'").project("city, latitude").fetchall() == [("Holtsville", 40.922326)]
    kinds = fleet.rows(connection, "birdstrikes").aggregate("typeof(any_value(flight_date)), sum(cost_total) > 0")
    assert kinds.fetchall() == [("DATE", True)]


def validated(config: Path) -> str:
    command = [sys.executable, "-m", "ingestcore.cli.main", "validate", str(config), "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
