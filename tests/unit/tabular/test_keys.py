"""Keys: the vectorised digests against hashlib over the canonical message, and what makes two rows the same."""

from __future__ import annotations

import datetime as dt
import hashlib
import struct
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingestcore.datasets.spec import DatasetSpec
from ingestcore.digests.choice import RowDigests
from ingestcore.tabular import keys as keys_module
from ingestcore.tabular.block import parse_block
from ingestcore.tabular.keys import Keys, Owner, keys
from ingestcore.tabular.partition import partition_of, repartition
from ingestcore.tabular.plan import Plan
from ingestcore.tabular.reader import Reader
from ingestcore.tabular.texts import arrow_type

OWNER = Owner("acme", "things", ("s3://lake/a.csv", "etag1"))

FIELDS: dict[str, Any] = {
    "s": "string",
    "n": "integer",
    "f": "float",
    "b": "boolean",
    "d": "date",
    "t": "timestamp",
    "u": {"type": "string", "trim": True, "casefold": True},
}
MORE: dict[str, Any] = FIELDS | {"m": "decimal(10,2)", "big": "decimal(38,5)", "j": "json"}
MORE_ROWS: list[dict[str, Any]] = [
    {"s": "x", "n": 7, "m": Decimal("1.50"), "big": Decimal("9" * 33 + ".99999"), "j": '{"b": 1, "a": [ true]}'},
    {"m": Decimal("-0.01"), "big": Decimal("-" + "9" * 33 + ".99999"), "j": " null "},
    {"m": Decimal("0.00"), "j": '"ü\\u00fc\\/"'},
    {},
]
CANONICAL = {'{"b": 1, "a": [ true]}': '{"a":[true],"b":1}', " null ": "null", '"ü\\u00fc\\/"': '"üü/"'}

ROWS: list[dict[str, Any]] = [
    {"s": "x", "n": 7, "f": 1.5, "b": True, "d": dt.date(2024, 2, 29), "t": dt.datetime(2024, 1, 5, 10, tzinfo=dt.UTC)},
    {"s": "", "n": -1, "f": -0.0, "b": False, "d": dt.date(1, 1, 1), "t": dt.datetime(1, 1, 1, tzinfo=dt.UTC)},
    {"s": "ü\x00\x1f€", "n": 2**63 - 1, "f": 1e300, "u": " Straße\u00a0"},
    {},
    {"n": -(2**63), "f": 5e-324, "u": "ΟΔΟΣ"},
]


@pytest.fixture(autouse=True)
def both_ways(digests: RowDigests, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here holds for both ways to the digests."""
    monkeypatch.setattr(keys_module, "row_digests", lambda: digests)


def table(rows: list[dict[str, Any]], spec: DatasetSpec) -> pa.Table:
    schema = pa.schema([(name, arrow_type(field)) for name, field in spec.named.items()])
    return pa.Table.from_pylist(rows, schema=schema)


def made(rows: list[dict[str, Any]], owner: Owner = OWNER, **described: Any) -> Keys:
    spec = DatasetSpec.model_validate({"fields": FIELDS} | described)
    numbers = pa.array(np.arange(1, len(rows) + 1))
    return keys(table(rows, spec), spec, [(owner, len(rows))], numbers)


TYPES = {"m": "decimal:2", "big": "decimal:5"}


def prefixed(*texts: str) -> bytes:
    return b"".join(len(text.encode()).to_bytes(4, "big") + text.encode() for text in texts)


def message(row: dict[str, Any], names: list[str], spec: DatasetSpec, owner: Owner) -> bytes:
    """The canonical message of a row, written down once more."""
    types = [text for name in names for text in (name, TYPES.get(name, spec.fields[name].type.value))]
    scope = prefixed(owner.tenant, owner.dataset, spec.key_version(), "columns", *types)
    bits = "".join("1" if row.get(name) is None else "0" for name in names)
    nulls = bytes(int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8))
    numbers, lengths, texts = b"", b"", b""
    for name in names:
        value, field = row.get(name), spec.fields[name]
        text = value or ""
        if field.type == "json":
            text = CANONICAL.get(value, value or "")
        if field.type in ("string", "json"):
            text = text.strip() if field.trim else text
            data = (text.casefold() if field.casefold else text).encode()
            lengths += struct.pack(">I", len(data))
            texts += data
        elif field.type == "decimal":
            numbers += int(value * 10 ** field.digits[1] if value else 0).to_bytes(16, "big", signed=True)
        elif field.type == "float":
            numbers += struct.pack(">d", (value or 0.0) + 0.0)
        else:
            if isinstance(value, dt.datetime):
                value = (value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
            elif isinstance(value, dt.date):
                value = (value - dt.date(1970, 1, 1)).days
            numbers += struct.pack(">q", int(value or 0))
    return hashlib.sha256(scope).digest()[:16] + nulls + numbers + lengths + texts


@pytest.mark.parametrize("names", [*([name] for name in FIELDS), ["t", "s", "n"], sorted(FIELDS)], ids=str)
def test_keys_are_the_documented_sha256_for_every_type(names: list[str]) -> None:
    described: dict[str, Any] = {"primary_key": names, "dedupe": {"keys": names}}
    spec = DatasetSpec.model_validate({"fields": FIELDS} | described)
    expected = [hashlib.sha256(message(row, names, spec, OWNER)).digest()[:16] for row in ROWS]
    assert made(ROWS, **described).entity.to_pylist() == expected
    assert made(ROWS, **described).key.to_pylist() == expected


@pytest.mark.parametrize("names", [["n"], ["s"], ["t", "s", "n"]], ids=str)
def test_entities_beside_other_keys_are_the_same_over_the_primary_key(names: list[str]) -> None:
    spec = DatasetSpec.model_validate({"fields": FIELDS, "primary_key": names})
    got = made(ROWS, primary_key=names)
    for columns, digests in ((names, got.entity), (sorted(FIELDS), got.key)):
        expected = [hashlib.sha256(message(row, columns, spec, OWNER)).digest()[:16] for row in ROWS]
        assert digests.to_pylist() == expected


@pytest.mark.parametrize("names", [["m"], ["j"], ["n", "big", "s", "j", "m"], sorted(MORE)], ids=str)
def test_keys_of_decimals_and_json_are_the_documented_sha256(names: list[str]) -> None:
    described: dict[str, Any] = {"fields": MORE, "primary_key": names, "dedupe": {"keys": names}}
    spec = DatasetSpec.model_validate(described)
    with localcontext(prec=50):
        expected = [hashlib.sha256(message(row, names, spec, OWNER)).digest()[:16] for row in MORE_ROWS]
    assert made(MORE_ROWS, **described).key.to_pylist() == expected


def test_keys_of_more_than_eight_columns_have_a_wider_bitmap() -> None:
    fields = {f"c{i:02}": "string" for i in range(19)}
    spec = DatasetSpec.model_validate({"fields": fields, "dedupe": {"keys": "all"}})
    rows = [{name: "v" for i, name in enumerate(fields) if i != gone} for gone in range(19)]
    got = keys(table(rows, spec), spec, [(OWNER, 19)], pa.array(range(19)))
    expected = [hashlib.sha256(message(row, sorted(fields), spec, OWNER)).digest()[:16] for row in rows]
    assert got.key.to_pylist() == expected


def test_known_keys_stay_what_they_are() -> None:
    # These bytes are in every deployed dedupe state: another value here makes all rows new.
    by_key = made(ROWS[:1], primary_key=["s"])
    by_place = made(ROWS[:1])
    assert by_key.entity[0].as_py().hex() == "1a1b6c291f91c890604a27c4c82bd274"
    assert by_key.key[0].as_py().hex() == "f10e31fa7195275b66c3e62e724cd603"
    assert by_place.key[0].as_py().hex() == "11cd780c2af1f7160d4c127d0f51c45c"


def test_without_a_primary_key_the_entity_is_the_key() -> None:
    got = made(ROWS, dedupe={"keys": "all"})
    assert got.entity.equals(got.key)


def test_rows_without_keys_are_told_apart_by_object_version_and_number() -> None:
    first = made([{}, {}]).key.to_pylist()
    assert len(set(first)) == 2
    assert made([{}, {}]).key.to_pylist() == first
    for other in (
        Owner("acme", "things", ("s3://lake/b.csv", "etag1")),
        Owner("acme", "things", ("s3://lake/a.csv", "etag2")),
    ):
        assert not set(made([{}, {}], other).key.to_pylist()) & set(first)


@pytest.mark.parametrize(
    "other", [Owner("other", "things", ()), Owner("acme", "thing", ()), Owner("acm", "ething", ())]
)
def test_tenants_and_datasets_never_share_a_key(other: Owner) -> None:
    for described in ({"primary_key": ["s"]}, {"dedupe": {"keys": "all"}}):
        ours, theirs = made(ROWS, **described), made(ROWS, other, **described)
        assert not set(ours.key.to_pylist()) & set(theirs.key.to_pylist())
        assert not set(ours.entity.to_pylist()) & set(theirs.entity.to_pylist())


def test_keys_of_gathered_objects_equal_those_of_each_alone() -> None:
    spec = DatasetSpec.model_validate({"fields": FIELDS})
    owners = [(OWNER, 2), (Owner("acme", "things", ("s3://lake/b.csv", "e")), 3)]
    together = keys(table(ROWS, spec), spec, owners, pa.array([1, 2, 1, 2, 3])).key.to_pylist()
    assert together == [*made(ROWS[:2]).key.to_pylist(), *made(ROWS[2:], owners[1][0]).key.to_pylist()]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"s": None}, {"s": ""}, False),
        ({"s": "a"}, {"s": "a "}, False),
        ({"u": " a"}, {"u": "A "}, True),
        ({"u": "STRASSE"}, {"u": "straße"}, True),
        ({"f": 1.0}, {"f": 1}, True),
        ({"f": 0.0}, {"f": -0.0}, True),
        ({"n": 0}, {"n": None}, False),
        ({"b": False}, {"b": None}, False),
        ({"s": "ab", "u": "c"}, {"s": "a", "u": "bc"}, False),
        ({"s": "a\x00"}, {"s": "a"}, False),
        ({"n": 1}, {"f": 1}, False),
    ],
)
def test_what_makes_two_rows_the_same(one: dict[str, Any], other: dict[str, Any], same: bool) -> None:
    got = made([one, other], dedupe={"keys": "all"}).key.to_pylist()
    assert (got[0] == got[1]) is same


def of_file(data: bytes, header: tuple[str, ...], described: dict[str, Any]) -> list[bytes]:
    spec = DatasetSpec.model_validate(described)
    plan = Plan.of(spec, header)
    parsed = parse_block(data, Reader(plan), plan)
    keyed: list[bytes] = keys(
        parsed.rows, spec, [(OWNER, parsed.rows.num_rows)], pa.array(parsed.ordinals)
    ).key.to_pylist()
    return keyed


def test_content_does_not_depend_on_column_order_nor_on_how_values_are_written() -> None:
    described = {"fields": {"a": "float", "b": "timestamp", "*": "string"}, "dedupe": {"keys": "all"}}
    one = of_file(b"1.0,2024-01-05T10:00:00Z,x,y\n", ("a", "b", "c", "d"), described)
    assert of_file(b'y,"x",2024-01-05 12:00+02:00,1e0\n', ("d", "c", "b", "a"), described) == one
    assert of_file(b"1.0,2024-01-05T10:00:00Z,y,x\n", ("a", "b", "c", "d"), described) != one


JSON_KEYS: list[tuple[str, str, bool]] = [
    ('{"a": 1,\n "b": [1, 2]}', '{"b":[1,2],"a":1}', True),
    ('{"a": {"d": 1, "c": 2}}', '{"a":{"c":2,"d":1}}', True),
    ('"\\u00fc"', '"ü"', True),
    ("1.50", "1.5", True),
    ("1e2", "100.0", True),
    ('{"a": 1, "a": 2}', '{"a": 2}', True),
    ("[1, 2]", "[2, 1]", False),
    ("1", "1.0", False),
    ("1", '"1"', False),
    ("null", "", False),
    ('{"a": null}', "{}", False),
    ("18446744073709551615", "18446744073709551614", False),
    ("12345678901234567890123", "12345678901234567890124", False),
    ("[0.1]", "[0.1000000000000000055]", False),
    ("1e-400", "0.0", False),
    ("3e-324", "5e-324", False),
    ("1234567890.123456789012", "1234567890.123456789013", False),
    ('{"b": 1234567890123456789, "a": 0.30000000000000004}', '{"a":0.30000000000000004,"b":1234567890123456789}', True),
    ('{"b":  12345678901234567890123, "a": [1.50]}', '{"a":[1.5],"b":12345678901234567890123}', True),
    ("[" * 600 + "]" * 600, "[" * 601 + "]" * 601, False),
    ('"' + "1" * 40 + '"', "1" * 40, False),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "same"), JSON_KEYS, ids=lambda part: str(part)[:40])
def test_json_is_the_same_however_it_is_spaced_and_sorted_and_no_other_way(one: str, other: str, same: bool) -> None:
    got = made([{"j": one or None}, {"j": other or None}], fields={"j": "json"}, dedupe={"keys": "all"}).key.to_pylist()
    assert (got[0] == got[1]) is same


def test_a_decimal_has_one_key_however_many_zeros_it_is_written_with_and_whatever_fits_before_the_point() -> None:
    def keyed(text: str, digits: str) -> list[bytes]:
        described = {"fields": {"m": f"decimal({digits})"}, "dedupe": {"keys": "all"}}
        return of_file(f'"{text}"\n'.encode(), ("m",), described)

    one = keyed("1.50", "10,2")
    for same in ("1.5", "+01.500", " 1.5 "):
        assert keyed(same, "10,2") == one
    assert keyed("1.5", "20,2") == one
    assert keyed("1.5", "10,3") != one
    assert keyed("-1.5", "10,2") != one
    assert keyed("", "10,2") != keyed("0", "10,2")


def test_keys_are_those_of_the_text_whatever_encoding_it_came_in() -> None:
    def keyed(encoding: str) -> list[bytes]:
        described = {"fields": {"s": "string"}, "dedupe": {"keys": "all"}, "csv": {"encoding": encoding}}
        return of_file("größe €\n".encode(encoding), ("s",), described)

    assert keyed("utf-8") == keyed("windows-1252") == keyed("iso-8859-15")


def test_content_is_the_same_where_an_optional_column_is_missing_or_null() -> None:
    described = {"fields": {"a": "string", "n": {"type": "integer", "required": False}}, "dedupe": {"keys": "all"}}
    assert of_file(b"x\n", ("a",), described) == of_file(b"x,\n", ("a", "n"), described)


def test_content_leaves_discarded_columns_out() -> None:
    described = {"fields": {"a": "string"}, "dedupe": {"keys": "all"}, "on_extra": "discard_value"}
    assert of_file(b"x,1\n", ("a", "junk"), described) == of_file(b"x,2\n", ("a", "junk"), described)


def test_the_name_of_a_free_column_is_part_of_the_content() -> None:
    described = {"fields": {"a": "string", "*": "string"}, "dedupe": {"keys": "all"}}
    assert of_file(b"x,1\n", ("a", "p"), described) != of_file(b"x,1\n", ("a", "q"), described)


def test_a_missing_key_column_is_named() -> None:
    spec = DatasetSpec.model_validate({"primary_key": ["id"]})
    with pytest.raises(KeyError, match="id"):
        keys(pa.table({"a": ["x"]}), spec, [(OWNER, 1)], pa.array([1]))


@pytest.mark.parametrize("partitions", [1, 8, 256, 1000])
def test_partitions_follow_the_entity_and_keep_the_order(partitions: int) -> None:
    rows = [{"n": i} for i in range(500)]
    entity = made(rows, primary_key=["n"]).entity
    owner = [int.from_bytes(key[:4], "big") % partitions for key in entity.to_pylist()]
    assert partition_of(entity, partitions).tolist() == owner
    assert partition_of(entity.slice(7, 20), partitions).tolist() == owner[7:27]
    parts = {p: t.column("n").to_pylist() for p, t in repartition(pa.table({"n": range(500)}), entity, partitions)}
    assert parts == {p: [i for i in range(500) if owner[i] == p] for p in sorted(set(owner))}


def test_no_rows_have_no_keys_and_no_partitions() -> None:
    got = made([], primary_key=["s"])
    assert len(got.entity) == len(got.key) == 0
    assert list(repartition(pa.table({"n": pa.array([], pa.int64())}), got.entity, 8)) == []
