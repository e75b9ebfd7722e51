"""The cutter: blocks end at true record ends, whatever the pieces it is fed and wherever it goes on."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from ingestcore.datasets.spec import Dialect
from ingestcore.tabular.cut import Cut, Cutter, Rest, Rows, TooLong

pytestmark = pytest.mark.usefixtures("scan")

RAW_LIMIT = 64 << 10


def records(data: bytes, dialect: Dialect) -> tuple[list[bytes], bytes]:
    """The oracle: one byte at a time. -> complete records, and what follows them unclosed at the end."""
    quote, escape = (text.encode() if text else None for text in (dialect.quote, dialect.escape))
    found, start, i, state = [], 0, 0, "record"
    while i < len(data):
        byte = data[i : i + 1]
        if byte == escape and state != "comment":
            state, i = ("quoted" if state == "quoted" else "field"), i + 2
            continue
        if byte == escape:
            i += 2
            continue
        if state == "record" and dialect.comment and byte == dialect.comment.encode():
            state = "comment"
        elif state == "quoted":
            if byte == quote:
                doubled = dialect.double_quote and data[i + 1 : i + 2] == quote
                i += doubled
                state = "quoted" if doubled else "field"
        elif byte in (b"\n", b"\r"):
            i += data[i : i + 2] == b"\r\n"
            found.append(data[start : i + 1])
            start, state = i + 1, "record"
        elif state == "comment":
            pass
        elif byte == quote and state in ("record", "start"):
            state = "quoted"
        else:
            state = "start" if byte == dialect.delimiter.encode() else "field"
        i += 1
    tail = data[start:]
    if tail and state != "quoted" and i == len(data):
        return [*found, tail], b""
    return found, tail


def cut(
    data: bytes, dialect: Dialect, block: int, most: int, pieces: Iterable[bytes], byte: int = 0, row: int = 1
) -> list[Cut]:
    cutter = Cutter(dialect, block, most, byte, row)
    cuts = [found for piece in pieces for found in cutter.feed(memoryview(piece))]
    return [*cuts, *cutter.end()]


def split(data: bytes, chance: random.Random) -> list[bytes]:
    """-> the same bytes in pieces, some of them tiny, some empty."""
    most = chance.choice((1, 3, 50, 1000))
    pieces, at = [], 0
    while at < len(data):
        size = chance.randrange(most + 1)
        pieces.append(data[at : at + size])
        at += size
    return pieces


def text(chance: random.Random) -> bytes:
    alphabet = chance.choice((b'ab,"\n', b'ab,""\n\r', b'abcdefgh,"\n\n\r\\#', b'a,"\n' + b"b" * 40))
    return bytes(chance.choice(alphabet) for _ in range(chance.randrange(600)))


DIALECTS = (Dialect(), Dialect(escape="\\"), Dialect(double_quote=False), Dialect(quote=None), Dialect(comment="#"))


def check(data: bytes, dialect: Dialect, block: int, most: int, cuts: list[Cut]) -> None:
    """Against the oracle: every record once, in order, with its number, in a block or alone."""
    whole, tail = records(data, dialect)
    at, row = 0, 0
    for number, found in enumerate(cuts):
        assert found.first_byte == at
        if isinstance(found, Rows):
            mine = whole[row : row + found.rows]
            assert (found.first_row, found.data) == (row + 1, b"".join(mine))
            assert found.last_start == found.end_byte - len(mine[-1])
            assert max(map(len, mine)) <= most
            assert len(found.data) <= block or found.rows == 1
            following = cuts[number + 1] if number + 1 < len(cuts) else None
            if isinstance(following, Rows):
                # As many records as fit; a CR that ends the window may belong to a CR LF, so it is left out.
                assert len(found.data) + len(whole[row + found.rows]) >= block
            row += found.rows
        else:
            record = whole[row] if row < len(whole) else tail
            assert (found.row, found.raw) == (row + 1, record[:RAW_LIMIT])
            assert found.closed == (row < len(whole)) and (len(record) > most or not found.closed)
            row += 1
        at = found.end_byte
    assert (at, row) == (len(data), len(whole) + bool(tail))


@pytest.mark.parametrize("seed", range(80))
def test_records_and_numbers_are_those_of_the_oracle_for_any_pieces_and_any_block_size(seed: int) -> None:
    chance = random.Random(seed)
    data, dialect = text(chance), chance.choice(DIALECTS)
    block, most = chance.choice((1, 7, 64, 100, 10_000)), chance.choice((1, 20, 64, 200, 10_000))
    once = cut(data, dialect, block, most, [data])
    check(data, dialect, block, most, once)
    for _ in range(3):
        assert cut(data, dialect, block, most, split(data, chance)) == once


@pytest.mark.parametrize("seed", range(30))
def test_going_on_after_any_cut_yields_exactly_what_followed(seed: int) -> None:
    chance = random.Random(1000 + seed)
    data, dialect = text(chance), chance.choice(DIALECTS)
    block, most = chance.choice((1, 7, 64, 100)), chance.choice((20, 64, 200, 10_000))
    cuts = cut(data, dialect, block, most, split(data, chance))
    for done, found in enumerate(cuts):
        row = found.first_row + found.rows if isinstance(found, Rows) else found.row + 1
        rest = data[found.end_byte :]
        assert cut(rest, dialect, block, most, split(rest, chance), found.end_byte, row) == cuts[done + 1 :]


@pytest.mark.parametrize("seed", range(30))
def test_a_stream_that_breaks_off_gives_its_complete_records_and_the_rest(seed: int) -> None:
    chance = random.Random(2000 + seed)
    dialect = chance.choice(DIALECTS)
    data = text(chance)
    cutter = Cutter(dialect, 64, 10_000)
    found = [one for piece in split(data, chance) for one in cutter.feed(memoryview(piece))]
    *rows, rest = [*found, *cutter.broken()]
    assert isinstance(rest, Rest)
    published = b"".join(one.data for one in rows if isinstance(one, Rows))
    assert published + data[rest.first_byte :] == data and rest.end_byte == len(data)
    assert rest.raw == data[rest.first_byte :][:RAW_LIMIT]
    whole, tail = records(data, dialect)
    # The last record may be cut short even where it looks whole, so without a line end it is not published.
    complete = len(whole) - (bool(whole) and not tail and not whole[-1].endswith((b"\n", b"\r")))
    assert rest.row - 1 in (complete, complete - data.endswith(b"\r"))


def test_a_long_record_needs_no_memory_for_what_is_dropped() -> None:
    cutter = Cutter(Dialect(), 1 << 20, 1 << 20)
    piece = memoryview(b"x" * (1 << 20))
    assert not [one for _ in range(50) for one in cutter.feed(piece)]
    assert cutter._held_bytes == 0 and len(cutter._long_raw) == RAW_LIMIT
    (found,) = cutter.feed(memoryview(b'tail\n1,2\n"open'))
    assert isinstance(found, TooLong) and (found.end_byte, found.closed) == ((50 << 20) + 5, True)
    rows, rest = cutter.end()
    assert isinstance(rows, Rows) and (rows.first_row, rows.data) == (2, b"1,2\n")
    assert isinstance(rest, TooLong) and (rest.row, rest.closed, rest.raw) == (3, False, b'"open')


@pytest.mark.parametrize(
    ("size", "kept"),
    [(99, True), (100, True), (101, False)],
)
@pytest.mark.parametrize("block", [10, 64, 100, 101, 5000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b""])
def test_a_record_may_have_max_row_bytes_with_its_line_end_whatever_the_block_size(
    size: int, kept: bool, block: int, end: bytes
) -> None:
    data = b"a,b\n" + b"y" * (size - len(end)) + end + (b"c,d\n" if end else b"")
    cuts = cut(data, Dialect(), block, 100, [data])
    long = [found for found in cuts if isinstance(found, TooLong)]
    assert bool(long) is not kept
    assert sum(found.rows for found in cuts if isinstance(found, Rows)) == 1 + kept + bool(end)
