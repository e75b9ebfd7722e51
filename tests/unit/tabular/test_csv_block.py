"""Rows and bad rows of a block: the vectorised parse against a plain one, wherever blocks are cut."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from ingestcore.datasets.spec import DatasetSpec, Dialect
from ingestcore.tabular.block import BadRow, Parsed, parse_block
from ingestcore.tabular.plan import Plan
from ingestcore.tabular.reader import Reader
from ingestcore.tabular.row_ends import record_ends
from ingestcore.testing import csv_oracle

pytestmark = pytest.mark.usefixtures("scan")

ALL_TYPES: dict[str, Any] = {
    "id": {"type": "string", "nullable": False, "max_length": 12},
    "n": {"type": "integer", "min": -5, "max": 10**18},
    "f": {"type": "float", "min": -1000},
    "b": "boolean",
    "d": {"type": "date", "min": "1990-01-01"},
    "t": {"type": "timestamp", "timezone": "Europe/Berlin"},
    "s": {"type": "string", "regex": '[^x]*"?'},
    "z": {"type": "timestamp", "format": "%d.%m.%Y %H:%M"},
    "m": {"type": "decimal(6,2)", "min": -50},
    "j": "json",
}

GOOD_TEXTS: dict[str, list[str]] = {
    "id": ["a", "b7", "long-enough", "ü€", "ab cd"],
    "n": ["1", "0", "-5", "007", "+4", " 12 ", "999999999999999999", ""],
    "f": ["1", "1.5", "-.5", "1e3", "+2.", "\t7 ", "1e-400", "-0.0", ""],
    "b": ["true", "FALSE", "y", "N", "1", "0", "Yes", " t ", ""],
    "d": ["2024-02-29", "1999-12-31", "2000-02-29", " 2024-01-01", ""],
    "t": ["2024-01-05T10:30:15", "2024-07-05 10:30", "2024-01-05T10Z", "2024-01-05T10:30:15.123456+02:00",
          "2024-10-27T02:30:00", "2024-01-05T00:00:00", "2024-01-05 00:00:00-0130", ""],
    "s": ["", "free text", "5\" pipe", "comma, inside", "line\nbreak", "crlf\r\nbreak", "quo\"\"te", "0y1F"],
    "z": ["05.01.2024 10:30", "5.1.2024 9:05", "31.12.1999 00:00", ""],
    "m": ["1.50", "1.5", ".5", "7", "+0009999.990", " 1.", "-50", ""],
    "j": ["1", "null", '{"a": [1, "x"]}', '"ü, €"', "[\n 1\r\n]", " true ", ""],
}  # fmt: skip
BAD_TEXTS: dict[str, list[str]] = {
    "id": ["", "much-too-long-id"],
    "n": ["0x1F", "1.0", "abc", "-6", "9223372036854775808", "99999999999999999999", "1_0", " ", "--1", "٣", "0X0"],
    "f": ["inf", "nan", "1e400", "1,5x", "-1000.5", "0x1p3", ".", "1e", "1 2"],
    "b": ["maybe", "2", "tru", "on"],
    "d": ["2024-02-30", "2023-02-29", "1900-02-29", "2024-1-5", "2024-01-05T00:00:00", "0000-01-01", "1989-12-31"],
    "t": ["2024-01-05", "2024-03-31T02:30:00", "2024-01-05T24:00:00", "2024-01-05T10:30:60", "2024-13-05T10:30",
          "2024-01-05T10:30:15.1234567", "2024-01-05T10:30:15+24:00", "0000-01-01T00:00:00", "0001-01-01T00:00+01:00",
          "05.01.2024"],
    "s": ["x", "exe"],
    "m": ["1.505", "10000", "1e1", "-50.01", "1,5x", ".", "1" * 45],
    "j": ["{", "[1", "2]", "'x'", "nul", "1e400"],
    "z": ["30.02.2024 10:30", "05.01.24 10:30", "2024-01-05T10:30", "05.01.2024", "5.1.2024 9:05 "[:-1] + "x"],
}  # fmt: skip


def plan_of(fields: dict[str, Any], header: tuple[str, ...] | None = None, **more: Any) -> Plan:
    spec = DatasetSpec.model_validate({"fields": fields} | more)
    return Plan.of(spec, tuple(fields) if header is None else header)


def parse(data: bytes, plan: Plan) -> Parsed:
    return parse_block(data, Reader(plan), plan)


def written(text: str, dialect: Dialect, chance: random.Random) -> str:
    """A value as a writer might put it into a file."""
    quote = dialect.quote
    if quote and (any(c in text for c in "\n\r,;|\t") or text.startswith(quote) or chance.random() < 0.2):
        return quote + text.replace(quote, quote * 2) + quote
    return text


def file_of(chance: random.Random, dialect: Dialect, rows: int, bad_rate: float) -> bytes:
    lines: list[bytes] = []
    for _ in range(rows):
        line_end = chance.choice(["\n", "\n", "\r\n"])
        kind = chance.random()
        if kind < 0.02:
            lines.append(line_end.encode())
            continue
        if kind < 0.04 and dialect.comment:
            lines.append((dialect.comment + 'it\'s 5" of "rain' + line_end).encode())
            continue
        worst = chance.choice(list(ALL_TYPES)) if chance.random() < bad_rate else ""
        texts = [chance.choice((BAD_TEXTS if name == worst else GOOD_TEXTS)[name]) for name in ALL_TYPES]
        line = dialect.delimiter.join(written(text, dialect, chance) for text in texts).encode()
        if chance.random() < bad_rate / 4:
            line += dialect.delimiter.encode()
        if chance.random() < bad_rate / 4:
            # One byte that is no UTF-8, or not defined in the other encodings.
            line = line.replace(b"e", chance.choice([b"\xe9", b"\x81", b"\xc3\xa5"]), 1)
        lines.append(line + line_end.encode())
    data = b"".join(lines)
    return data.rstrip(b"\r\n") if chance.random() < 0.3 and data.rstrip(b"\r\n") else data


def blocks_of(data: bytes, dialect: Dialect, size: int) -> list[bytes]:
    """Cut at record ends, each block about `size` bytes."""
    ends = record_ends(data, dialect).tolist()
    if not ends or ends[-1] < len(data):
        ends.append(len(data))
    blocks, start = [], 0
    for end, following in zip(ends, [*ends[1:], None], strict=True):
        if following is None or following - start > size:
            blocks.append(data[start:end])
            start = end
    return blocks


def whole(data: bytes, plan: Plan, size: int, reader: Reader | None = None) -> csv_oracle.Outcome:
    """Parse block by block and put the results together."""
    reader = reader or Reader(plan)
    rows: dict[int, dict[str, Any]] = {}
    bad: dict[int, bytes] = {}
    count = blank = 0
    for block in blocks_of(data, plan.dialect, size):
        parsed = parse_block(block, reader, plan)
        rows |= dict(zip((parsed.ordinals + count).tolist(), parsed.rows.to_pylist(), strict=True))
        bad |= {row.ordinal + count: parsed.records.raw(row.ordinal) for row in parsed.bad}
        assert len(parsed.ordinals) + len(parsed.bad) + parsed.records.blank == parsed.records.count
        count += parsed.records.count
        blank += parsed.records.blank
    missing = tuple(number for number in range(count) if number not in rows and number not in bad)
    assert len(missing) == blank
    return csv_oracle.Outcome(rows, bad, missing)


DIALECTS = [
    Dialect(),
    Dialect(delimiter=";", comment="#"),
    Dialect(delimiter="|", quote="'", null_values=("", "NA")),
    Dialect(delimiter="\t", escape="\\"),
    Dialect(encoding="windows-1252", comment="#"),
    Dialect(encoding="iso-8859-3", delimiter=";", null_values=("", "Ã¼â")),
]


@pytest.mark.parametrize(
    "dialect", DIALECTS, ids=["comma", "comments", "apostrophes", "escapes", "windows-1252", "iso-8859-3"]
)
@pytest.mark.parametrize("bad_rate", [0.0, 0.05, 0.9], ids=["clean", "few bad", "storm"])
def test_rows_and_bad_rows_equal_those_of_the_plain_reader_at_every_block_size(
    dialect: Dialect, bad_rate: float
) -> None:
    chance = random.Random(f"{dialect} {bad_rate}")
    plan = plan_of(ALL_TYPES, csv=dialect)
    reader = Reader(plan)
    for rows in (3, 90):
        data = file_of(chance, dialect, rows, bad_rate)
        expected = csv_oracle.outcome(data, plan.titles, plan.spec.named, dialect)
        for size in (64, 1000, 1 << 20):
            # A reader that remembers other blocks comes to the same verdicts.
            assert whole(data, plan, size, reader) == expected


def test_any_bytes_at_all_come_out_once_and_the_same_at_every_block_size() -> None:
    chance = random.Random(5)
    fields = {"a": "string", "b": {"type": "integer", "nullable": False}}
    for _ in range(250):
        dialect = Dialect(
            double_quote=chance.random() < 0.8,
            escape=chance.choice([None, None, "\\"]),
            comment=chance.choice([None, "#"]),
            quote=chance.choice(['"', '"', None]),
            encoding=chance.choice(["utf-8", "utf-8", "windows-1253", "koi8-r"]),
        )
        weights = chance.choice([(4, 4, 4, 1, 2, 6, 1, 1, 0.3), (1, 8, 4, 1, 2, 8, 1, 1, 0.3)])
        data = bytes(chance.choices(b'",\n\ra1#\\\xff', weights=weights, k=chance.randrange(1, 80)))
        plan = plan_of(fields, csv=dialect)
        expected = csv_oracle.outcome(data, plan.titles, plan.spec.named, dialect)
        for size in (1, 16, 1000):
            assert whole(data, plan, size) == expected, (data, dialect)


ROWS = {"id": {"type": "string", "nullable": False}, "n": "integer", "t": "timestamp", "s": "string"}


def one_bad(data: bytes, fields: dict[str, Any] | None = None, **more: Any) -> BadRow:
    parsed = parse(data, plan_of(fields or ROWS, **more))
    assert len(parsed.bad) == 1
    return parsed.bad[0]


@pytest.mark.parametrize(
    ("line", "column", "value", "words"),
    [
        (b"a,x,,", "n", "x", "n is not a whole number of at most 64 bits"),
        (b"a,0x1F,,", "n", "0x1F", "n is not a whole number of at most 64 bits"),
        (b",1,,", "id", "", "id must not be null"),
        (b"a,1,2024-01-05,", "t", "2024-01-05", "t is not a date with a time like 2024-12-31T23:59:59"),
        (b"a,1,,\xff", "s", "\ufffd", "s is not UTF-8 text"),
        (b"a,1", "", "", "4 columns are expected and 2 were found"),
        (b"a,1,,,,", "", "", "4 columns are expected and 6 were found"),
        (b'a,1,,"x', "", "", "a quote is opened and never closed: close it, or double it within the value"),
        (b",x,,", "n", "x", "n is not a whole number of at most 64 bits"),
        (b'a,"line\nbreak",,', "n", "line\ufffdbreak", "n is not a whole number of at most 64 bits"),
    ],
)
def test_a_bad_row_says_which_column_and_what_was_expected(line: bytes, column: str, value: str, words: str) -> None:
    bad = one_bad(b"ok,1,,\n\n" + line)
    assert (bad.ordinal, bad.column, bad.value, bad.message) == (2, column, value, words)


def test_the_rest_of_a_block_with_a_bad_row_passes() -> None:
    parsed = parse(b"a,1,,\nb,x,,\nc,3,,\n", plan_of(ROWS))
    assert parsed.rows.column("id").to_pylist() == ["a", "c"]
    assert parsed.ordinals.tolist() == [0, 2]


def test_a_message_does_not_depend_on_neighbours() -> None:
    alone = one_bad(b"a,x,bad,\xff\n")
    among = parse(b"b,1,,\nc,0x1,2024-01-05,\na,x,bad,\xff\nd,1\n", plan_of(ROWS)).bad[1]
    assert (alone.message, alone.value) == (among.message, among.value)


def test_columns_go_by_name_in_declared_order_with_the_rest_after_them() -> None:
    fields = {"id": {"from": "Id No."}, "n": "integer", "gone": {"type": "date", "required": False}, "*": "float"}
    plan = plan_of(fields, header=("y", "n", "Id No.", "x"))
    rows = parse(b"1,2,a,3\n", plan).rows
    assert rows.schema.names == ["id", "n", "gone", "y", "x"]
    assert rows.to_pylist() == [{"id": "a", "n": 2, "gone": None, "y": 1.0, "x": 3.0}]


def test_a_discarded_column_is_not_judged() -> None:
    plan = plan_of({"n": "integer"}, header=("junk", "n"), on_extra="discard_value")
    assert parse(b"\xff\xfe,1\n", plan).rows.to_pylist() == [{"n": 1}]


def test_without_a_spec_every_column_is_text() -> None:
    plan = Plan.of(DatasetSpec(), ("a", "b"))
    assert parse(b'007,\n"",x\n', plan).rows.to_pylist() == [{"a": "007", "b": None}, {"a": "", "b": "x"}]


def test_without_a_header_columns_are_the_fields_in_order() -> None:
    plan = plan_of({"a": "string", "b": "integer"}, header=(), csv={"header": False})
    assert parse(b"x,1\n", plan).rows.to_pylist() == [{"a": "x", "b": 1}]


@pytest.mark.parametrize(
    ("data", "values", "blank"),
    [
        (b"1\n\n2\n", [1, 2], 1),
        (b'1\n""\n2\n', [1, None, 2], 0),
        (b"\r\n\r\n", [], 2),
        (b"1\r\n\r\n2", [1, 2], 1),
        (b"1\r\r2", [1, 2], 1),
    ],
)
def test_a_blank_line_is_no_row_also_where_there_is_one_column(
    data: bytes, values: list[int | None], blank: int
) -> None:
    parsed = parse(data, plan_of({"n": "integer"}))
    assert (parsed.rows.column("n").to_pylist(), parsed.records.blank) == (values, blank)


def test_a_byte_order_mark_within_an_object_is_part_of_the_value() -> None:
    mark = "\ufeff".encode()
    data = b"a,1,,\n" + mark + b"b,1,,\n"
    parsed = [whole(data, plan_of(ROWS), size).rows for size in (6, 1000)]
    assert parsed[0] == parsed[1]
    assert parsed[0][1]["id"] == "\ufeffb"
    ragged = parse(mark + b"b\nc,1,,\n", plan_of(ROWS))
    assert [row.ordinal for row in ragged.bad] == [0]


def test_bytes_of_a_declared_encoding_are_decoded_and_kept_as_they_are_in_dead_letters() -> None:
    plan = plan_of({"s": "string", "n": "integer"}, csv={"encoding": "cp1252"})
    parsed = parse(b'\x80 "\x93,1\n"\xfc,\n",x\xa0\n\x81,3\nok,\x85\n', plan)
    assert parsed.rows.to_pylist() == [{"s": '€ "“', "n": 1}]
    assert [(bad.message, bad.value) for bad in parsed.bad] == [
        ("n is not a whole number of at most 64 bits", "x\u00a0"),
        ("s is not windows-1252 text", "\ufffd"),
        ("n is not a whole number of at most 64 bits", "…"),
    ]
    assert [parsed.records.raw(bad.ordinal) for bad in parsed.bad] == [b'"\xfc,\n",x\xa0\n', b"\x81,3\n", b"ok,\x85\n"]


def test_an_unquoted_null_value_is_null_and_a_quoted_one_is_not() -> None:
    plan = plan_of({"s": "string", "n": "integer"}, csv={"null_values": ["", "NA", "9"]})
    parsed = parse(b'NA,NA\n"NA",9\n"","9"\n,""\n', plan)
    assert parsed.rows.to_pylist() == [
        {"s": None, "n": None},
        {"s": "NA", "n": None},
        {"s": "", "n": 9},
        {"s": None, "n": None},
    ]


def test_crlf_within_quotes_survives_at_every_block_size() -> None:
    value = "x\r\ny\r\n\nz"
    data = f'a,1,,"{value}"\r\n'.encode() * 40
    for size in (20, 64, 10_000):
        rows = whole(data, plan_of(ROWS), size).rows
        assert [row["s"] for row in rows.values()] == [value] * 40


def test_five_hundred_columns_are_read_with_few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {f"c{i}": "integer" for i in range(500)}
    plan = plan_of(fields)
    reader = Reader(plan)
    passes = []
    table = Reader._table

    def counted(self: Reader, body: bytes, types: Any) -> Any:
        passes.append(len(types))
        return table(self, body, types)

    monkeypatch.setattr(Reader, "_table", counted)
    lines = [",".join("x" if i == j else "1" for j in range(500)) for i in range(0, 500, 5)]
    parsed = parse_block("\n".join([*lines, ",".join(["1"] * 500)]).encode(), reader, plan)
    assert len(parsed.bad) == 100 and parsed.rows.num_rows == 1
    # Four rows set aside, two refusals that turn columns, the block, the rows aside, the values shown.
    assert len(passes) <= 9


def test_a_block_of_comments_only_has_no_rows() -> None:
    parsed = parse(b'#a\n#"b\n', plan_of(ROWS, csv={"comment": "#"}))
    assert (parsed.rows.num_rows, parsed.records.blank, parsed.bad) == (0, 2, ())


def test_an_empty_block_has_no_rows() -> None:
    parsed = parse(b"", plan_of(ROWS))
    assert (parsed.rows.num_rows, parsed.records.count) == (0, 0)


def test_raw_bytes_of_records_join_to_the_block() -> None:
    data = b'a,1,,"x\n\n"\r\n\n#c\nb,2\r'
    records = parse(data, plan_of(ROWS, csv={"comment": "#"})).records
    assert b"".join(records.raw(i) for i in range(records.count)) == data
    assert records.starts.dtype == np.int64
