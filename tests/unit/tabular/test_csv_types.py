"""What each type accepts, and that a verdict is the same alone, among good values and beside a bad one."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest

from ingestcore.datasets.spec import DatasetSpec, Dialect, FieldSpec, Type
from ingestcore.tabular.block import parse_block
from ingestcore.tabular.plan import Plan
from ingestcore.tabular.reader import Reader
from ingestcore.tabular.rules import rules_of
from ingestcore.testing import csv_oracle

pytestmark = pytest.mark.usefixtures("scan")

REFUSED = Enum("Verdict", ["REFUSED"]).REFUSED
DIALECT = Dialect(delimiter="|")


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc,arg-type]


def verdicts(texts: list[str], field: dict[str, Any], quoted: bool) -> list[Any]:
    """-> value of each text, or REFUSED, read in one block."""
    spec = DatasetSpec.model_validate({"fields": {"id": "string", "v": field}, "csv": DIALECT})
    plan = Plan.of(spec, ("id", "v"))
    mark = '"' if quoted else ""
    if any(c in text for text in texts for c in '\n"'):
        mark = '"'
    doubled = (text.replace('"', '""') if mark else text for text in texts)
    data = "".join(f"k|{mark}{text}{mark}\n" for text in doubled).encode()
    parsed = parse_block(data, Reader(plan), plan)
    values: list[Any] = [REFUSED] * len(texts)
    for ordinal, value in zip(parsed.ordinals.tolist(), parsed.rows.column("v").to_pylist(), strict=True):
        values[ordinal] = value
    return values


WORDS = {"type": "boolean", "true": ["ja", "J"], "false": ["nein"]}
ONE_WORD = {"type": "boolean", "true": ["0"]}
BERLIN = {"type": "timestamp", "timezone": "Europe/Berlin"}
AMERICAN = {"type": "timestamp", "format": "%m/%d/%Y %H:%M"}
AMERICAN_DAY = {"type": "date", "format": "%m/%d/%Y %H:%M"}
MONEY = "decimal(10,2)"
LONG = {"type": "timestamp", "format": "%d %b %Y %I:%M:%S.%f %p %z"}

CASES: list[tuple[str | dict[str, Any], str, Any]] = [
    ("integer", "7", 7),
    ("integer", "007", 7),
    ("integer", "+7", 7),
    ("integer", "-0", 0),
    ("integer", " 7\t", 7),
    ("integer", "9223372036854775807", 2**63 - 1),
    ("integer", "-9223372036854775808", -(2**63)),
    ("integer", "9223372036854775808", REFUSED),
    ("integer", "00000000000000000000000009", 9),
    ("integer", "0x1F", REFUSED),
    ("integer", "0X1f", REFUSED),
    ("integer", " 0x1F", REFUSED),
    ("integer", "7.0", REFUSED),
    ("integer", "1e3", REFUSED),
    ("integer", "1_000", REFUSED),
    ("integer", "1,000", REFUSED),
    ("integer", "+-7", REFUSED),
    ("integer", " ", REFUSED),
    ("integer", "\u0663", REFUSED),
    ("float", "1", 1.0),
    ("float", "1.", 1.0),
    ("float", "+.5", 0.5),
    ("float", "-1.5E+2", -150.0),
    ("float", " 1.5 ", 1.5),
    ("float", "1e-400", 0.0),
    ("float", "1e400", REFUSED),
    ("float", "-1e400", REFUSED),
    ("float", "inf", REFUSED),
    ("float", "-Infinity", REFUSED),
    ("float", "NaN", REFUSED),
    ("float", "nan(7)", REFUSED),
    ("float", "1,5", REFUSED),
    ("float", "0x1p3", REFUSED),
    ("float", ".", REFUSED),
    ("float", "1e", REFUSED),
    ("boolean", "true", True),
    ("boolean", "YeS", True),
    ("boolean", "T", True),
    ("boolean", "1", True),
    ("boolean", " n ", False),
    ("boolean", "FALSE", False),
    ("boolean", "0", False),
    ("boolean", "2", REFUSED),
    ("boolean", "ja", REFUSED),
    (WORDS, "ja", True),
    (WORDS, "J", True),
    (WORDS, "nein", False),
    (WORDS, "JA", REFUSED),
    (WORDS, "true", REFUSED),
    (ONE_WORD, "0", True),
    (ONE_WORD, "no", False),
    (ONE_WORD, "yes", REFUSED),
    ("date", "2024-02-29", dt.date(2024, 2, 29)),
    ("date", "0001-01-01", dt.date(1, 1, 1)),
    ("date", "9999-12-31", dt.date(9999, 12, 31)),
    ("date", " 2024-01-05 ", dt.date(2024, 1, 5)),
    ("date", "0000-01-01", REFUSED),
    ("date", "2023-02-29", REFUSED),
    ("date", "1900-02-29", REFUSED),
    ("date", "2024-1-5", REFUSED),
    ("date", "20240105", REFUSED),
    ("date", "2024-01-05T00:00:00", REFUSED),
    ("date", "2024-01-05Z", REFUSED),
    ("timestamp", "2024-01-05T10:30:15", utc(2024, 1, 5, 10, 30, 15)),
    ("timestamp", "2024-01-05 10:30", utc(2024, 1, 5, 10, 30)),
    ("timestamp", "2024-01-05T10", utc(2024, 1, 5, 10)),
    ("timestamp", "2024-01-05T00:00:00", utc(2024, 1, 5)),
    ("timestamp", "2024-01-05T10:30:15.123456", utc(2024, 1, 5, 10, 30, 15, 123456)),
    ("timestamp", "2024-01-05T10:30:15Z", utc(2024, 1, 5, 10, 30, 15)),
    ("timestamp", "2024-01-05T00:00:00Z", utc(2024, 1, 5)),
    ("timestamp", "2024-01-05T10:30:15.5+02:00", utc(2024, 1, 5, 8, 30, 15, 500000)),
    ("timestamp", "2024-01-05T10:30-0130", utc(2024, 1, 5, 12)),
    ("timestamp", " 2024-01-05T10 ", utc(2024, 1, 5, 10)),
    ("timestamp", "2024-01-05", REFUSED),
    ("timestamp", "2024-01-05Z", REFUSED),
    ("timestamp", "2024-02-30T00:00:00", REFUSED),
    ("timestamp", "2024-01-05T24:00:00", REFUSED),
    ("timestamp", "2024-01-05T10:30:60", REFUSED),
    ("timestamp", "2024-01-05T10:30:15.1234567", REFUSED),
    ("timestamp", "2024-01-05T10:30:15.", REFUSED),
    ("timestamp", "2024-01-05T10:30:15+24:00", REFUSED),
    ("timestamp", "2024-01-05t10:30:15z", REFUSED),
    ("timestamp", "0000-06-01T00:00:00", REFUSED),
    ("timestamp", "0001-01-01T00:00:00+00:01", REFUSED),
    ("timestamp", "9999-12-31T23:59:59-00:01", REFUSED),
    (BERLIN, "2024-01-05T10:30:15", utc(2024, 1, 5, 9, 30, 15)),
    (BERLIN, "2024-07-05T10:30:15", utc(2024, 7, 5, 8, 30, 15)),
    (BERLIN, "2024-07-05T10:30:15Z", utc(2024, 7, 5, 10, 30, 15)),
    (BERLIN, "2024-10-27T02:30:00", utc(2024, 10, 27, 0, 30)),
    (BERLIN, "2024-03-31T02:30:00", REFUSED),
    (AMERICAN, "1/8/1990 0:00", utc(1990, 1, 8)),
    (AMERICAN, "12/31/2024 23:59", utc(2024, 12, 31, 23, 59)),
    (AMERICAN, "1/8/90 0:00", REFUSED),
    (AMERICAN, "2/30/1990 0:00", REFUSED),
    (AMERICAN, "1990-01-08 00:00", REFUSED),
    (AMERICAN, "1/8/1990", REFUSED),
    (AMERICAN, "1/8/1990 0:00x", REFUSED),
    (AMERICAN_DAY, "1/8/1990 0:00", dt.date(1990, 1, 8)),
    (AMERICAN_DAY, "1/8/1990", REFUSED),
    (LONG, "05 Jan 2024 03:04:05.25 PM +0200", utc(2024, 1, 5, 13, 4, 5, 250000)),
    (LONG, "05 jan 2024 12:04:05.000001 am Z", utc(2024, 1, 5, 0, 4, 5, 1)),
    (LONG, "05 Jan 2024 13:04:05.25 PM +0200", REFUSED),
    ({"type": "date", "format": "%y%j"}, "24060", dt.date(2024, 2, 29)),
    ({"type": "date", "format": "%y%j"}, "23366", REFUSED),
    ("string", " 7 ", " 7 "),
    (MONEY, "1.50", Decimal("1.50")),
    (MONEY, "1.5", Decimal("1.50")),
    (MONEY, "1.", Decimal("1.00")),
    (MONEY, "+.5", Decimal("0.50")),
    (MONEY, " -0.05\t", Decimal("-0.05")),
    (MONEY, "-0.00", Decimal("0.00")),
    (MONEY, "1.5000", Decimal("1.50")),
    (MONEY, "0000000000000001.50", Decimal("1.50")),
    (MONEY, "0" * 50 + "1.5" + "0" * 50, Decimal("1.50")),
    (MONEY, "." + "0" * 60, Decimal("0.00")),
    (MONEY, "99999999.99", Decimal("99999999.99")),
    (MONEY, "100000000", REFUSED),
    (MONEY, "1.005", REFUSED),
    (MONEY, "0." + "0" * 60 + "1", REFUSED),
    (MONEY, "1e3", REFUSED),
    (MONEY, "1E-1", REFUSED),
    (MONEY, "1,50", REFUSED),
    (MONEY, "1_0", REFUSED),
    (MONEY, ".", REFUSED),
    (MONEY, "-", REFUSED),
    (MONEY, "1.5.0", REFUSED),
    (MONEY, "NaN", REFUSED),
    (MONEY, "\u0663", REFUSED),
    ("decimal(38,0)", "9" * 38, Decimal("9" * 38)),
    ("decimal(38,0)", "-" + "9" * 38, Decimal("-" + "9" * 38)),
    ("decimal(38,0)", "7." + "0" * 40, Decimal("7")),
    ("decimal(38,0)", "1" + "0" * 38, REFUSED),
    ("decimal(38,0)", "9" * 60, REFUSED),
    ("decimal(38,38)", "." + "9" * 38, Decimal("0." + "9" * 38)),
    ("decimal(38,38)", "00.5", Decimal("0.5")),
    ("decimal(38,38)", "1", REFUSED),
    ("json", "7", "7"),
    ("json", "[1, 2.50, null]", "[1, 2.50, null]"),
    ("json", " null ", " null "),
    ("json", '{"b": {}, "a": "ü\\u00fc"}', '{"b": {}, "a": "ü\\u00fc"}'),
    ("json", "true\n", "true\n"),
    ("json", "9" * 60, "9" * 60),
    ("json", "", None),
    ("json", "nul", REFUSED),
    ("json", "NaN", REFUSED),
    ("json", "-Infinity", REFUSED),
    ("json", "1e400", REFUSED),
    ("json", "01", REFUSED),
    ("json", "1 2", REFUSED),
    ("json", "[1", REFUSED),
    ("json", "2]", REFUSED),
    ("json", "[1,]", REFUSED),
    ("json", "{'a': 1}", REFUSED),
    ("json", '{"a" 1}', REFUSED),
    ("json", '"\\ud800"', REFUSED),
    ("json", '"a\tb"', REFUSED),
    ("json", " ", REFUSED),
]


@pytest.mark.parametrize("quoted", [False, True], ids=["bare", "quoted"])
@pytest.mark.parametrize(("field", "text", "value"), CASES, ids=lambda part: str(part)[:40] if part else "-")
def test_a_text_is_read_as_its_type_says_whatever_stands_beside_it(
    field: str | dict[str, Any], text: str, value: Any, quoted: bool
) -> None:
    described = {"type": field} if isinstance(field, str) else field
    alone = verdicts([text], described, quoted)
    assert alone == [value]
    good = next(other for kind, other, right in CASES if kind == field and right is not REFUSED)
    assert verdicts([text, good, "~", text, good], described, quoted)[::3] == [value, value]


def test_an_empty_text_is_null_but_a_quoted_one_is_an_empty_string() -> None:
    for kind in Type:
        nothing = "" if kind is Type.STRING else None
        field = {"type": MONEY if kind is Type.DECIMAL else kind}
        assert verdicts(["", ""], field, quoted=False) == [None, None]
        assert verdicts(["", ""], field, quoted=True) == [nothing, nothing]


ALPHABETS = {
    Type.INTEGER: "0123456789+- xX_.",
    Type.FLOAT: "0123456789+-.eE ninfa",
    Type.DATE: "0123-19",
    Type.TIMESTAMP: "0123-T :.Z+",
    Type.BOOLEAN: "truefalsyno10 TF",
    Type.DECIMAL: "0123456789+-. e",
    Type.JSON: '{}[]:,"\\u0018dtrlens.-+eE \t\x0b\x01ü',
}
SEEDS = {
    Type.INTEGER: ["12", "9223372036854775807", "0x1F"],
    Type.FLOAT: ["1.5e3", "inf", "nan", "-.5"],
    Type.DATE: ["2024-02-29", "1900-12-31", "0001-01-01"],
    Type.TIMESTAMP: ["2024-02-29T10:30:15", "2024-01-05 00:00", "2024-01-05T23:59:59.123456Z", "2024-01-05T10+02:00"],
    Type.BOOLEAN: ["true", "No", "0"],
    Type.DECIMAL: ["1.50", "-99999999.99", "100000000", ".005", "0" * 36 + "1.5", "1e2", "7."],
    Type.JSON: ['{"a": [1, 2.5e3]}', '"\\ud83d\\ude00 \\n"', "[true, null, {}]", "-0.10", "12345678901234567890123"],
}


@pytest.mark.parametrize("kind", list(ALPHABETS))
def test_mutated_texts_get_the_plain_readers_verdict(kind: Type) -> None:
    chance = random.Random(f"{kind}")
    described = {"type": MONEY if kind is Type.DECIMAL else kind}
    field = FieldSpec.model_validate(described)
    for _ in range(40):
        texts = []
        for _ in range(12):
            letters = list(chance.choice(SEEDS[kind]))
            for _ in range(chance.randrange(4)):
                at = chance.randrange(len(letters) + 1)
                letters[at : at + chance.randrange(3)] = chance.choices(ALPHABETS[kind], k=chance.randrange(2))
            texts.append("".join(letters))
        expected = []
        for text in texts:
            try:
                expected.append(csv_oracle.value_of(csv_oracle.Cell(bytearray(text.encode())), field, DIALECT))
            except csv_oracle.Bad:
                expected.append(REFUSED)
        assert verdicts(texts, described, quoted=False) == expected, texts
        assert [verdicts([text], described, quoted=False)[0] for text in texts[:4]] == expected[:4], texts


RULES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"type": "integer", "min": 1, "max": 3}, ["1", "3", ""], ["0", "4"]),
    ({"type": "integer", "min": 0.5}, ["1"], ["0"]),
    ({"type": "float", "max": 1}, ["1.0", "-5"], ["1.0001"]),
    ({"type": "date", "min": "2024-01-01", "max": "2024-12-31"}, ["2024-01-01", "2024-12-31"], ["2025-01-01"]),
    ({"type": "timestamp", "min": "2024-01-01T00:00:00Z"}, ["2024-01-01T00:00:00"], ["2023-12-31T23:59:59"]),
    ({"type": "string", "length": 5}, ["00501", "ü€123", ""], ["501", "005011"]),
    ({"type": "string", "min_length": 2, "max_length": 3}, ["ab", "abc"], ["a", "abcd"]),
    ({"type": "string", "regex": "[A-Z]{2}|x"}, ["DE", "x", ""], ["DEx", "xDE", "D"]),
    ({"type": "string", "enum": ["a", "B c"]}, ["a", "B c", ""], ["A", "b"]),
    ({"type": "integer", "enum": ["1", "20"]}, ["1", "020", ""], ["2"]),
    ({"type": MONEY, "min": 0.1, "max": 10}, ["0.10", ".1", "10.00", ""], ["0.09", "10.01"]),
    (
        {"type": "decimal(38,2)", "min": -(10**35), "max": "123456789012345678901234567890.12"},
        ["-" + "1" + "0" * 35, "123456789012345678901234567890.12"],
        ["123456789012345678901234567890.13"],
    ),
    ({"type": MONEY, "enum": ["1.5", "20"]}, ["1.50", "020", ""], ["1.51"]),
    ({"type": "json", "nullable": False}, ["null"], [""]),
    ({"type": "string", "nullable": False}, ["a"], [""]),
    ({"type": "float", "nullable": False}, ["0"], [""]),
]


@pytest.mark.parametrize(("field", "kept", "refused"), RULES, ids=lambda part: str(part)[:50])
def test_a_rule_refuses_what_breaks_it_and_nothing_else(
    field: dict[str, Any], kept: list[str], refused: list[str]
) -> None:
    read = verdicts([*kept, *refused], field, quoted=False)
    assert [value is REFUSED for value in read] == [False] * len(kept) + [True] * len(refused)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"type": "string", "min": 1}, "`min` and `max` are for numbers"),
        ({"type": "integer", "length": 3}, "lengths are for strings"),
        ({"type": "integer", "regex": "x"}, "`regex` is for strings"),
        ({"type": "string", "regex": "("}, "missing"),
        ({"type": "integer", "enum": ["x"]}, "'x' is not a whole number"),
        ({"type": "date", "min": "1.1.2024"}, "is not a date like"),
        ({"type": "string", "format": "%Y"}, "`format` is for dates"),
        ({"type": "date", "format": "%Q"}, "%Q is not known"),
        ({"type": "date", "format": "%Y-%m"}, "names no whole day"),
        ({"type": "timestamp", "format": "%Y-%m-%d %f"}, "as .%f"),
        ({"type": "timestamp", "timezone": "Mars/Base"}, "Mars/Base"),
        ({"type": "date", "timezone": "UTC"}, "`timezone` is for timestamps"),
        ({"type": "string", "true": ["x"]}, "are for booleans"),
        ({"type": "boolean", "true": ["x"], "false": ["x"]}, "means both"),
        ({"type": MONEY, "min": 0.001}, "'0.001' is not a decimal number with at most 8 digits before and 2 after"),
        ({"type": MONEY, "max": 10**8}, "'100000000' is not a decimal number"),
        ({"type": "decimal(30,10)", "max": 12345678901.1234567}, "write it in quotes"),
        ({"type": MONEY, "enum": ["x"]}, "'x' is not a decimal number"),
        ({"type": MONEY, "length": 3}, "lengths are for strings"),
        ({"type": "json", "min": 3}, "`min` and `max` are for numbers"),
        ({"type": "json", "enum": ["1"]}, "`enum` can't be used with json"),
    ],
)
def test_a_rule_that_does_not_fit_its_type_is_named_with_advice(field: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="field v: ") as caught:
        rules_of("v", FieldSpec.model_validate(field))
    assert words in str(caught.value)
