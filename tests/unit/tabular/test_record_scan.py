"""Records with an odd number, found by their bytes: no hexadecimal one is missed, whatever stands around it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from ingestcore.datasets.spec import Dialect, Type
from ingestcore.tabular.record_scan import KINDS, RecordScan
from ingestcore.tabular.row_ends import record_ends


@pytest.fixture
def machine_scan(library: Path) -> RecordScan:
    return RecordScan(library)


def odd(scan: RecordScan, data: bytes, kinds: list[int], dialect: Dialect | None = None, most: int = 64) -> list | None:
    dialect = dialect or Dialect()
    ends = record_ends(data, dialect)
    if not len(ends) or ends[-1] < len(data):
        ends = np.append(ends, len(data))
    found = scan.odd(np.frombuffer(data, np.uint8), ends, dialect, np.array(kinds, np.uint8), most)
    return None if found is None else found.tolist()


USUAL = {
    Type.INTEGER: ("", "0", "-7", "+7", "007", "999999999999999999", '"12"'),
    Type.FLOAT: ("", "1", "-1.5", ".5", "1.", "1e9", "1.5E-3", '"1.5"'),
    Type.DATE: ("", "2024-02-29", "1999-12-31", '"2024-01-01"'),
    Type.TIMESTAMP: ("", "2024-02-29", "2024-01-05T10:30:15Z", "2024-01-05 23:59", "2024-01-05T10:30:15.123456+02:00"),
}
ODD = {
    Type.INTEGER: ("0x1F", "0X0", "abc", "1.0", "-", " 1", "1_0", "9223372036854775808", '"0x1F"', "٣"),
    Type.FLOAT: ("0x1p3", "nan", "inf", ".", "1e", "12.3.4", "1 2", "-", "1e400"),
    Type.DATE: ("2024-13-01", "2024-00-10", "2024-1-5", "05.01.2024", "2024-01-32", "2024-01-05x", "20x4-01-05"),
    Type.TIMESTAMP: (
        "2024-13-45T00:00:00Z",
        "2024-01-05T24:00",
        "2024-01-05T10",
        "2024-01-05T10:60",
        "2024-01-05x10:30",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_column_usually_holds_is_not_odd(machine_scan: RecordScan, kind: Type) -> None:
    for text in USUAL[kind]:
        for end in (b"\n", b"\r\n", b"\r", b""):
            data = f"x,{text}".encode() + end
            assert odd(machine_scan, data, [0, KINDS[kind]]) == [], data


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_can_not_hold_is_odd(machine_scan: RecordScan, kind: Type) -> None:
    for text in ODD[kind]:
        for end in (b"\n", b"\r\n", b"\r", b""):
            data = f"x,{text}".encode() + end
            assert odd(machine_scan, data, [0, KINDS[kind]]) == [0], data
            assert odd(machine_scan, data, [KINDS[kind], 0]) == [0], "x is no number either"
            assert odd(machine_scan, data, [0, 0]) == []


@pytest.mark.parametrize("seed", range(20))
def test_every_odd_record_is_found_wherever_it_lies(machine_scan: RecordScan, seed: int) -> None:
    chance = random.Random(seed)
    dialect = Dialect(quote=chance.choice(['"', '"', "'"]), double_quote=chance.random() < 0.7)
    quote = dialect.quote or ""
    texts = [
        "",
        "free text",
        '5" pipe',
        f"{quote}a,b{quote}",
        f"{quote}a\nb,1{quote}",
        f"{quote}{quote}",
        "it's",
        "0x1F",
    ]
    texts += [f"{quote}a{quote}{quote},b{quote}"] if dialect.double_quote else []
    rows, wanted = [], []
    for number in range(400):
        bad = chance.random() < 0.1
        value = (
            chance.choice(["0x1F", f"{quote}0X2{quote}", "abc"])
            if bad
            else chance.choice(["12", f"{quote}7{quote}", ""])
        )
        fields = [chance.choice(texts), "x" * chance.randrange(60), value, chance.choice(texts)]
        rows.append(",".join(fields))
        wanted += [number] if bad else []
    data = chance.choice(["\n", "\r\n"]).join(rows).encode()
    assert odd(machine_scan, data, [0, 0, 1], dialect) == wanted


def test_fields_beyond_those_known_and_missing_ones_are_passed_over(machine_scan: RecordScan) -> None:
    assert odd(machine_scan, b"1\n1,2,x,y\n\n1,2\nx\n", [1, 1]) == [4]


def test_many_are_told_without_their_numbers(machine_scan: RecordScan) -> None:
    assert odd(machine_scan, b"x\n" * 5, [1], most=5) == [0, 1, 2, 3, 4]
    assert odd(machine_scan, b"x\n" * 6, [1], most=5) is None


def test_rows_shorter_than_expected_have_their_ends_found_too(machine_scan: RecordScan) -> None:
    text = np.frombuffer(b"\n" * 1000, np.uint8)
    assert machine_scan.ends(text, Dialect()).tolist() == list(range(1, 1001))


@pytest.mark.parametrize("dialect", [Dialect(escape="\\"), Dialect(comment="#")])
def test_a_dialect_with_escapes_or_comments_is_not_known(dialect: Dialect) -> None:
    assert not RecordScan.knows(dialect)
