"""Compressed, tiny, awkward and repeated objects through a fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ingestcore.ledger import State
from ingestcore.testing import lake
from ingestcore.testing.fleet import LocalFleet
from ingestcore.testing.generate import Kind, Rows, generate, generate_objects

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

SPEC = Rows().shape.spec
COLUMNS = Rows().shape.columns
EXACT = {
    "dedupe": {"keys": "all"},
    "csv": {"encoding": "windows-1252"},
    "fields": {"größe": "string", "price": {"type": "decimal(38,2)", "min": 0}, "facts": "json"},
}


@pytest.fixture(scope="module")
def fleet(make_fleet: Callable[..., LocalFleet]) -> LocalFleet:
    """A fleet in which a folder is a dataset: `raw/NAME/...` goes to `NAME`."""
    fleet = make_fleet()
    names = ("zipped", "tiny", "awkward", "crlf", "twin-a", "twin-b", "odd", "empty", "broken")
    source = fleet.source(route={f"{name}/*": name for name in (*names, "exact")})
    fleet.up({"sources": {fleet.name: source}, "datasets": {**dict.fromkeys(names, SPEC), "exact": EXACT}})
    return fleet


def taken(fleet: LocalFleet) -> int:
    """-> objects the fleet has taken so far."""
    return len(fleet.settled(0).objects)


def compare(fleet: LocalFleet, dataset: str, expected: Path) -> None:
    connection = fleet.connection()
    found = fleet.rows(connection, dataset)
    assert lake.differences(connection, found, lake.expected_rows(connection, expected), COLUMNS) == ([], [])


def states(fleet: LocalFleet, part: str) -> list[State]:
    return [o.state for o in fleet.settled(0).objects if part in o.origin.uri]


def test_gzip_is_inflated(fleet: LocalFleet, tmp_path: Path) -> None:
    before = taken(fleet)
    truth = generate(tmp_path / "rows.csv.gz", megabytes=10, seed=1, expected=tmp_path / "expected.parquet")
    fleet.upload("zipped/rows.csv.gz", truth.path)
    fleet.settled(before + 1)
    compare(fleet, "zipped", tmp_path / "expected.parquet")
    assert states(fleet, "zipped/") == [State.BALANCED]


@pytest.mark.parametrize(("dataset", "kind"), [("awkward", Kind.TRICKY), ("crlf", Kind.CRLF)])
def test_newlines_in_quotes_stray_quotes_and_crlf_are_read_right(
    fleet: LocalFleet, tmp_path: Path, dataset: str, kind: Kind
) -> None:
    before = taken(fleet)
    truth = generate(tmp_path / "rows.csv", megabytes=20, kind=kind, seed=2, expected=tmp_path / "expected.parquet")
    fleet.upload(f"{dataset}/rows.csv", truth.path)
    fleet.settled(before + 1)
    compare(fleet, dataset, tmp_path / "expected.parquet")
    wanted = Counter((row.row, row.raw) for row in truth.bad)
    assert Counter(letters(fleet, dataset)) == wanted


def test_the_same_file_in_two_datasets_is_complete_in_both(fleet: LocalFleet, tmp_path: Path) -> None:
    before = taken(fleet)
    truth = generate(tmp_path / "rows.csv", megabytes=1, seed=3, expected=tmp_path / "expected.parquet")
    for name in ("twin-a", "twin-b"):
        fleet.upload(f"{name}/rows.csv", truth.path)
    fleet.settled(before + 2)
    for name in ("twin-a", "twin-b"):
        compare(fleet, name, tmp_path / "expected.parquet")


def test_odd_keys_work(fleet: LocalFleet, tmp_path: Path) -> None:
    before = taken(fleet)
    keys = ("a b.csv", "a+b.csv", "100%.csv", "Zürich.csv", "..%2F..%2Fetc.csv", "..csv", "a//b.csv", "~$'&\".csv")
    for number, key in enumerate(keys):
        fleet.upload(f"odd/{key}", f"id,timestamp,user,amount,country,note\n{number},,u,1,DE,{key[0]}\n".encode())
    fleet.settled(before + len(keys))
    assert states(fleet, "/odd/") == [State.BALANCED] * len(keys)
    assert fleet.rows(fleet.connection(), "odd").shape[0] == len(keys)


def test_decimals_json_and_an_old_encoding_come_out_exact(fleet: LocalFleet) -> None:
    before = taken(fleet)
    lines = [
        "größe,price,facts",
        'ü€,1.50,"{""b"": 1, ""a"": [1.0]}"',
        'ü€,01.5,"{ ""a"":[1.0],""b"":1}"',  # the same values, written otherwise
        f"“x”,{'9' * 36}.99,null",
        "a,,",
        "b,1.505,1",
        "c,-1,1",
        "d,1,{'a'}",
    ]
    data = "\n".join(lines).encode("windows-1252") + b"\n\x81,1,1\n"
    fleet.upload("exact/old.csv", data)
    fleet.upload("exact/wide.csv", "größe,price,facts\nz,1,1\n".encode("utf-16"))
    fleet.settled(before + 2)
    found = fleet.rows(fleet.connection(), "exact")
    types = dict(zip(found.columns, map(str, found.types), strict=True))
    assert (types["price"], types["facts"]) == ("DECIMAL(38,2)", "VARCHAR")
    rows = set(found.project('"größe", price, facts').fetchall())
    facts = {row[2] for row in rows if row[0] == "ü€"}
    assert len(facts) == 1 and facts <= {'{"b": 1, "a": [1.0]}', '{ "a":[1.0],"b":1}'}
    assert {row[:2] for row in rows} == {
        ("ü€", Decimal("1.50")),
        ("“x”", Decimal("9" * 36 + ".99")),
        ("a", None),
    }
    fleet.quiet()
    told = fleet.letters(fleet.connection(), ("dataset", "reason", "row", "raw"))
    mine = {(reason, row, bytes(raw)[:20]) for dataset, reason, row, raw in told if dataset == "exact"}
    assert mine == {
        ("VALIDATION_FAIL", 5, b"b,1.505,1\n"),
        ("VALIDATION_FAIL", 6, b"c,-1,1\n"),
        ("VALIDATION_FAIL", 7, b"d,1,{'a'}\n"),
        ("VALIDATION_FAIL", 8, b"\x81,1,1\n"),
        ("SCHEMA_DRIFT", None, "größe,price,facts".encode("utf-16")[:20]),
    }


def test_empty_objects_are_counted(fleet: LocalFleet) -> None:
    before = taken(fleet)
    fleet.upload("empty/nothing.csv", b"")
    fleet.upload("empty/header.csv", ",".join(COLUMNS).encode() + b"\n")
    fleet.settled(before + 2)
    assert states(fleet, "empty/") == [State.BALANCED, State.BALANCED]


def test_a_damaged_gzip_is_published_up_to_the_break_and_shown_as_incomplete(fleet: LocalFleet, tmp_path: Path) -> None:
    before = taken(fleet)
    truth = generate(tmp_path / "rows.csv.gz", megabytes=5, seed=4)
    whole = truth.path.read_bytes()
    fleet.upload("broken/rows.csv.gz", whole[: len(whole) // 2])
    fleet.settled(before + 1)
    (found,) = [o for o in fleet.settled(0).objects if "broken/" in o.origin.uri]
    assert found.state is State.INCOMPLETE
    assert 0 < found.published < truth.fresh


def test_five_thousand_tiny_objects_arrive(fleet: LocalFleet, tmp_path: Path) -> None:
    before = taken(fleet)
    expected = tmp_path / "expected.parquet"
    truths = generate_objects(tmp_path / "tiny", objects=5000, rows_each=22, bad=0.001, expected=expected)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda t: fleet.upload(f"tiny/{t.path.name}", t.path.read_bytes()), truths))
    fleet.settled(before + len(truths), 300)
    compare(fleet, "tiny", expected)
    assert Counter(states(fleet, "tiny/")) == {State.BALANCED: len(truths)}


def letters(fleet: LocalFleet, dataset: str) -> list[tuple[int, bytes]]:
    """-> row numbers and bytes of a dataset's dead letters, once they are in the lake."""
    fleet.quiet()
    found: list[tuple[Any, ...]] = fleet.letters(fleet.connection(), ("dataset", "row", "raw"))
    return [(row, bytes(raw).rstrip(b"\r\n")) for name, row, raw in found if name == dataset]
