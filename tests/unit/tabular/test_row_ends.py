"""Where records end: the vectorised scan against a plain state machine, and against pyarrow's count of rows."""

from __future__ import annotations

import random

import pyarrow as pa
import pyarrow.csv
import pytest

from ingestcore.datasets.spec import Dialect
from ingestcore.tabular.dialect import parse_options
from ingestcore.tabular.row_ends import LongRecord, record_ends
from ingestcore.testing import csv_oracle

pytestmark = pytest.mark.usefixtures("scan")

ALPHABETS = (
    (b'",\n\ra#\\', (3, 2, 1, 0.3, 2, 1, 0.5)),
    (b'",\n\ra#\\', (6, 1, 1, 0.1, 2, 0.2, 0.1)),
    (b'",\n\ra#\\', (1, 4, 3, 1, 1, 1, 1)),
    (b'",\na', (1, 1, 0.3, 6)),
)


def dialect_of(chance: random.Random) -> Dialect:
    return Dialect(
        double_quote=chance.random() < 0.7,
        escape=chance.choice([None, None, "\\"]),
        comment=chance.choice([None, None, "#"]),
        quote=chance.choice(['"', '"', '"', None]),
    )


def text_of(chance: random.Random, longest: int) -> bytes:
    letters, weights = chance.choice(ALPHABETS)
    return bytes(chance.choices(letters, weights=weights, k=chance.randrange(longest)))


def true_ends(data: bytes, dialect: Dialect) -> list[int]:
    ends, at = [], 0
    for record in csv_oracle.records(data, dialect):
        at += len(record.data)
        if record.complete:
            ends.append(at)
    return ends


@pytest.mark.parametrize(
    ("data", "ends"),
    [
        (b"", []),
        (b"a", []),
        (b"a\n", [2]),
        (b"a\r\nb\r\n", [3, 6]),
        (b"a\rb\rc", [2, 4]),
        (b"a\r", []),
        (b"\n\n\r\n", [1, 2, 4]),
        (b'a,"x\ny"\nb\n', [8, 10]),
        (b'a,"x\r\ny"\r\n', [10]),
        (b'5" pipe,1\n6" pipe,2\n', [10, 20]),
        (b'"a""b\n","c"\n', [12]),
        (b'"a"b"\n"c\n"\n', [6, 11]),
        (b'a,"b\n', []),
        (b',"\n"\n,""\n', [5, 9]),
    ],
)
def test_records_end_where_the_reader_ends_them(data: bytes, ends: list[int]) -> None:
    assert record_ends(data, Dialect()).tolist() == ends


@pytest.mark.parametrize(
    ("dialect", "data", "ends"),
    [
        (Dialect(quote=None), b'"a\n"\n', [3, 5]),
        (Dialect(quote="'"), b"'a\n',\"\n", [7]),
        (Dialect(double_quote=False), b'"a""\n', [5]),
        (Dialect(escape="\\"), b'a\\\nb,\\"\n"\\"\n"\n', [8, 14]),
        (Dialect(escape="\\"), b"a\\\\\nb\n", [4, 6]),
        (Dialect(comment="#"), b'#it\'s 5"\n"a\n#"\n', [9, 15]),
        (Dialect(delimiter="\t"), b'a\t"\n"\n', [6]),
    ],
)
def test_every_dialect_has_its_own_ends(dialect: Dialect, data: bytes, ends: list[int]) -> None:
    assert record_ends(data, dialect).tolist() == ends


@pytest.mark.parametrize(
    "characters", [{"delimiter": "§"}, {"quote": "\n"}, {"quote": ","}, {"escape": '"'}, {"comment": '"'}]
)
def test_a_dialect_whose_characters_can_not_be_told_apart_is_refused(characters: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must"):
        Dialect(**characters)  # type: ignore[arg-type]


def test_ends_equal_those_of_the_plain_state_machine() -> None:
    chance = random.Random(71)
    for _ in range(12_000):
        dialect, data = dialect_of(chance), text_of(chance, 40)
        assert record_ends(data, dialect).tolist() == true_ends(data, dialect), (data, dialect)


def test_ends_of_long_texts_with_stray_quotes_equal_those_of_the_plain_state_machine() -> None:
    chance = random.Random(72)
    for _ in range(60):
        dialect, data = dialect_of(chance), text_of(chance, 4000)
        assert record_ends(data, dialect).tolist() == true_ends(data, dialect), (data, dialect)


def test_a_memoryview_is_read_like_bytes() -> None:
    data = b'a,"b\n"\nc\n'
    assert record_ends(memoryview(data), Dialect()).tolist() == record_ends(data, Dialect()).tolist()


def test_the_readers_count_of_rows_agrees() -> None:
    chance = random.Random(73)
    for _ in range(2000):
        dialect = dialect_of(chance).model_copy(update={"comment": None})
        data = b"x," + text_of(chance, 60)
        ragged: list[int] = []

        def note(row: object, ragged: list[int] = ragged) -> str:
            ragged.append(1)
            return "skip"

        table = pa.csv.read_csv(
            pa.BufferReader(data),
            read_options=pa.csv.ReadOptions(use_threads=False, column_names=["a", "b"], block_size=len(data) + 1),
            parse_options=parse_options(dialect, note),
            convert_options=pa.csv.ConvertOptions(column_types={"a": pa.string(), "b": pa.string()}),
        )
        ends = record_ends(data, dialect).tolist()
        tail = int(not ends or ends[-1] < len(data))
        assert table.num_rows + len(ragged) == len(ends) + tail, (data, dialect)


def test_a_long_record_ends_at_the_same_byte_however_it_is_cut() -> None:
    chance = random.Random(74)
    for _ in range(6000):
        dialect, data = dialect_of(chance), text_of(chance, 40)
        ends = record_ends(data, dialect).tolist()
        head = chance.randrange(min([*ends, len(data) + 1]))
        record, at, found = LongRecord(dialect, data[:head]), head, None
        while at < len(data) and found is None:
            size = chance.randrange(1, 5)
            end = record.feed(data[at : at + size])
            found = None if end is None else at + end
            at += size
        assert found == (ends[0] if ends else None), (data, dialect, head)


def test_an_open_quote_is_told_from_a_record_without_line_end() -> None:
    assert LongRecord(Dialect(), b'a,"b\nc').inside_quotes
    assert not LongRecord(Dialect(), b'a,"b\n"').inside_quotes
    assert not LongRecord(Dialect(), b'a,b"').inside_quotes
    assert not LongRecord(Dialect(comment="#"), b'#,"').inside_quotes


def test_a_head_that_holds_the_whole_record_is_refused() -> None:
    with pytest.raises(ValueError, match="ends within"):
        LongRecord(Dialect(), b"a\nb")
