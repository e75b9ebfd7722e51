"""What `ingest tap` prints of a record, and which rows its filters let through."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pytest

from ingestcore.cli.choices import names_object, topic_named
from ingestcore.cli.errors import OperatorError
from ingestcore.cli.looking.moments import Start, moment, start_of
from ingestcore.cli.looking.tap_filters import Filters, pairs
from ingestcore.cli.looking.tap_lines import Asked, encoded, lines
from ingestcore.datasets.spec import Dialect
from ingestcore.messages.blocks import Block
from ingestcore.messages.dead_letters import DeadLetter
from ingestcore.messages.rows import write
from ingestcore.reasons import Reason
from ingestcore.stage import At, Input
from ingestcore.testing.typed_rows import facts_of, typed_batch, typed_input

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
A, B = facts_of("a.csv"), facts_of("b.csv.gz")
KEYS = [bytes([n]) * 16 for n in range(4)]


def shown(input: Input, whole: bool = False, dialect: Dialect | None = None, **filters: Any) -> list[dict[str, Any]]:
    """-> the lines of a record, read back from their JSON."""
    asked = Asked(Filters(**filters), whole, lambda dataset: dialect or Dialect())
    return [orjson.loads(encoded(line)) for line in lines(input, asked)]


def message(topic: str, value: bytes, headers: Mapping[str, str] | None = None, key: bytes = b"") -> Input:
    return Input(At(topic, 2, 7), value, headers or {}, key, 1_700_000_000_123)


def block(data: bytes, first_row: int = 10, first_byte: int = 100) -> Input:
    headers = Block(A, ("x",), 3, first_row, first_byte, False, ((0, "ab"),)).headers() | {"rows": "2"}
    return message("blocks", data, headers, bytes.fromhex(A.id) + b"\0\0\0\3")


TYPED = typed_input(2, 7, typed_batch(KEYS, [A, A, B, B]))


class TestRows:
    def test_a_row_is_a_line_with_readable_platform_columns(self) -> None:
        line = shown(TYPED)[2]
        assert line["row"]["_key"] == line["row"]["text"] == "02" * 16
        assert line["row"]["_object"]["uri"] == "s3://lake/b.csv.gz"
        assert (line["topic"], line["partition"], line["offset"], line["index"]) == ("typed", 2, 7, 2)
        assert line["timestamp"] == "2023-11-14T22:13:20.007Z"
        assert line["headers"] == {"dataset": "items@1", "rows": "4"}

    def test_without_rows_a_record_is_one_line(self) -> None:
        (line,) = shown(TYPED, whole=True)
        assert (line["rows"], line["columns"]["number"]) == (4, "int64")
        assert "row" not in line

    @pytest.mark.parametrize(
        ("filters", "rows"),
        [
            ({"where": [("number", "3")]}, [3]),
            ({"where": [("_row", "3"), ("number", "3")]}, [3]),
            ({"where": [("_row", "3"), ("number", "4")]}, []),
            ({"where": [("_key", "01" * 16)]}, [2]),
            ({"where": [("_key", "nothing hexadecimal")]}, []),
            ({"where": [("number", "three")]}, []),
            ({"where": [("number", "")]}, []),
            ({"where": [("_object.uri", "s3://lake/a.csv")]}, [1, 2]),
            ({"object": "*.gz"}, [3, 4]),
            ({"object": "s3://lake/a"}, [1, 2]),
            ({"object": B.id[:9]}, [3, 4]),
            ({"dataset": "items"}, [1, 2, 3, 4]),
            ({"dataset": "items@1"}, [1, 2, 3, 4]),
            ({"dataset": "items@2"}, []),
            ({"dataset": "item"}, []),
            ({"headers": [("rows", "4")]}, [1, 2, 3, 4]),
            ({"headers": [("rows", "5")]}, []),
            ({"headers": [("none", "")]}, []),
        ],
    )
    def test_filters(self, filters: dict[str, Any], rows: list[int]) -> None:
        assert [line["row"]["_row"] for line in shown(TYPED, **filters)] == rows

    def test_a_record_is_shown_without_its_rows_if_one_of_them_fits(self) -> None:
        assert shown(TYPED, whole=True, where=[("number", "3")])
        assert not shown(TYPED, whole=True, where=[("number", "9")])

    def test_values_are_compared_in_the_type_of_their_column(self) -> None:
        columns = {
            "text": pa.array(["1", "", None]),
            "float": pa.array([1.0, 0.1, None]),
            "flag": pa.array([True, False, None]),
            "day": pa.array([date(2024, 5, 1), None, None]),
            "at": pa.array([datetime(2024, 5, 1, 12, tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
            "price": pa.array([Decimal("1.50"), None, None], pa.decimal128(10, 2)),
            "_provenance": pa.DictionaryArray.from_arrays(
                pa.array([0, 1, 1]), pa.array([{"purpose": "x"}, {"purpose": "y"}])
            ),
        }
        batch = pa.RecordBatch.from_pydict(columns)

        def places(name: str, text: str) -> list[int]:
            found: list[int] = Filters([(name, text)]).rows(batch).tolist()
            return found

        assert places("text", "1") == [0]
        assert places("text", "") == [1, 2]
        assert places("float", "1") == places("float", "1.0") == places("float", "1e0") == [0]
        assert places("flag", "false") == [1]
        assert places("flag", "") == [2]
        assert places("day", "2024-05-01") == [0]
        assert places("at", "2024-05-01T12:00:00Z") == places("at", "2024-05-01T12:00:00") == [0]
        assert places("price", "1.5") == [0]
        assert places("_provenance.purpose", "y") == [1, 2]
        assert places("_provenance.none", "y") == []

    def test_a_mistyped_column_is_told_from_one_that_nothing_matches(self) -> None:
        filters = Filters([("nmber", "3"), ("_object.uri", "x"), ("number", "77")])
        assert not list(lines(TYPED, Asked(filters, False)))
        assert filters.unknown() == ["nmber"]

    def test_what_is_no_arrow_is_shown_as_it_is_with_the_problem(self) -> None:
        (line,) = shown(message("normalized", b"\xff\xfe"))
        assert "not an Arrow IPC stream" in line["problem"]
        assert line["value"] == {"base64": "//4="}


class TestOtherTopics:
    def test_json_as_json_and_hash_keys_in_hex(self) -> None:
        (line,) = shown(
            message("objects", b'{"dataset": "zips", "id": "ab", "bucket": "lake", "key": "z"}', key=b"A" * 16)
        )
        assert line["value"]["dataset"] == "zips"
        assert line["key"] == "41" * 16
        assert shown(message("objects", b'{"dataset": "zips", "id": "ab"}'), dataset="zip") == []
        assert shown(message("objects", b'{"bucket": "lake", "key": "z.csv"}'), object="s3://lake/z")

    def test_values_within_json_are_found_by_path_through_lists(self) -> None:
        entry = message(
            "ledger", b'{"origin": {"dataset": "d@1", "uri": "s3://b/k"}, "entries": [{"offset": 1}, {"offset": 5}]}'
        )
        assert shown(entry, where=[("entries.offset", "5"), ("origin.dataset", "d@1")], dataset="d", object="b/k")
        assert not shown(entry, where=[("entries.offset", "4")])

    def test_a_tombstone_is_null(self) -> None:
        (line,) = shown(message("config", b"", key=b"source/x"))
        assert (line["key"], line["value"]) == ("source/x", None)

    def test_a_block_is_its_records_numbered_and_placed(self) -> None:
        first, second = shown(block(b'a,"x\ny"\nb\n'))
        assert first["row"] == {"row": 10, "byte_first": 100, "byte_last": 108, "text": 'a,"x\ny"'}
        assert second["row"] == {"row": 11, "byte_first": 108, "byte_last": 110, "text": "b"}
        assert first["headers"]["object"]["uri"] == A.uri

    def test_a_block_is_cut_as_its_dataset_is_written(self) -> None:
        assert len(shown(block(b"a'\n'b\n"), dialect=Dialect(quote=None))) == 2
        assert len(shown(block(b"'a\nb'\n"), dialect=Dialect(quote="'"))) == 1

    def test_a_block_as_a_record(self) -> None:
        (line,) = shown(block(b"a\nb\n"), whole=True, object="a.csv", where=[("row", "10")])
        assert line["value"] == {
            "object": A.uri,
            "dataset": "items@1",
            "block": 3,
            "row": 10,
            "rows": 2,
            "byte_first": 100,
            "byte_last": 104,
            "last": False,
        }

    def test_a_dead_letter_says_its_facts(self) -> None:
        facts = {"row": "12", "column": "n", "value": "x"}
        letter = DeadLetter(
            raw=b"x,\xff\n",
            reason=Reason.VALIDATION_FAIL,
            message="row 12: no",
            stage="csv-parser",
            topic="t",
            partition=0,
            offset=1,
            origin=A.id,
            object=A,
            facts=facts,
        )
        sent = message("dlq", letter.raw, letter.headers(), bytes.fromhex(letter.id))
        (line,) = shown(
            sent, where=[("reason", "VALIDATION_FAIL"), ("row", "12"), ("object.uri", A.uri)], dataset="items"
        )
        assert (line["value"]["id"], line["key"]) == (letter.id, letter.id)
        assert line["value"]["raw"] == {"base64": "eCz/Cg=="}
        assert not shown(sent, where=[("reason", "SCHEMA_DRIFT")])

    def test_the_changelog_key_by_key(self) -> None:
        log = message("dedupe-changelog", KEYS[1] + KEYS[2])
        assert [line["row"]["_key"] for line in shown(log)] == ["01" * 16, "02" * 16]
        assert [line["index"] for line in shown(log, where=[("_key", "02" * 16)])] == [1]
        assert shown(log, whole=True)[0]["rows"] == 2
        assert shown(log, object="a.csv") == []

    def test_an_empty_batch_is_a_record_without_rows(self) -> None:
        empty = message("typed", bytes(write(pa.RecordBatch.from_pydict({"x": pa.array([], pa.int64())}))))
        assert shown(empty) == []
        assert shown(empty, whole=True)[0]["rows"] == 0


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("earliest", Start()),
        ("latest", Start(latest=True)),
        ("1200", Start(offset=1200)),
        ("1h", Start(timestamp_ms=1_769_857_200_000)),
        ("2026-01-31T11:00:00Z", Start(timestamp_ms=1_769_857_200_000)),
        ("2026-01-31T12:00:00+01:00", Start(timestamp_ms=1_769_857_200_000)),
        ("2026-01-31", Start(timestamp_ms=1_769_817_600_000)),
    ],
)
def test_where_to_begin(text: str, start: Start) -> None:
    assert start_of(text, now=NOW) == start


@pytest.mark.parametrize("text", ["erliest", "yesterday", "-5", ""])
def test_no_place_to_begin(text: str) -> None:
    with pytest.raises(OperatorError, match="earliest, latest, an offset"):
        start_of(text)


def test_moments_without_a_zone_are_utc() -> None:
    assert moment("2026-01-31T12:00", "--since") == NOW
    assert moment("7d", "--since", NOW) == datetime(2026, 1, 24, 12, tzinfo=UTC)
    with pytest.raises(OperatorError, match="--since 'soon' is no moment"):
        moment("soon", "--since")


@pytest.mark.parametrize("text", ["normalized", "ingest.normalized"])
def test_topics_go_by_both_names(text: str) -> None:
    assert topic_named(text, "ingest.") == "normalized"


def test_the_closest_topic_is_told() -> None:
    with pytest.raises(OperatorError, match="the closest is ingest\\.normalized") as told:
        topic_named("normalised", "ingest.")
    assert told.value.exit_code == 2
    with pytest.raises(OperatorError, match="there are config, objects"):
        topic_named("xyzzy", "ingest.")


def test_objects_are_meant_by_part_pattern_or_id() -> None:
    assert all(names_object(p, "ab12", "s3://b/raw/z.csv.gz") for p in ("", "raw/z", "*.gz", "z*", "s3://b/*", "ab1"))
    assert not any(names_object(p, "ab12", "s3://b/raw/z.csv.gz") for p in ("*.csv", "b12", "Z.csv"))


def test_pairs_are_written_with_an_equals_sign() -> None:
    assert pairs(["a=b=c", "d="], "--where") == (("a", "b=c"), ("d", ""))
    with pytest.raises(OperatorError, match="--where 'abc': write --where name=value"):
        pairs(["abc"], "--where")
