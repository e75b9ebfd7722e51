"""Pure parts of the Postgres sink: which row counts, when the breaker opens, what a line of COPY looks like."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from ingestcore.reasons import Reason
from ingestcore.stage import At, Fate, Line, Origin, Reject, Step, Unbalanced, check
from services.postgres_sink.breaker import Breaker, Circuit
from services.postgres_sink.failures import Fault, fault
from services.postgres_sink.lines import Lines, hexadecimal
from services.postgres_sink.newest import entities

Rows = list[tuple[int, str, int | None]]


def drawn(seed: int) -> Rows:
    chance = random.Random(seed)
    return [(chance.randint(0, 4), chance.choice("ab"), chance.choice([None, 1, 2, 3, 4])) for _ in range(60)]


def one_by_one(rows: Rows, revision: bool) -> tuple[set[int], set[int]]:
    """-> what stands in a table after every row was offered in turn; the rows that came after a higher revision."""
    table: dict[tuple[int, str], int] = {}
    late = set()
    for number, (i, text, mine) in enumerate(rows):
        there = table.get((i, text))
        highest = max((r or 0 for other, o, r in rows[:number] if (other, o) == (i, text)), default=0)
        if revision and highest > (mine or 0):
            late.add(number)
        if there is None or not revision:
            table[i, text] = number
        else:
            stays = rows[there][2]
            if (stays is None and mine is None) or (mine is not None and (stays is None or mine > stays)):
                table[i, text] = number
    return set(table.values()), late


@pytest.mark.parametrize("revision", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_a_batch_ends_as_if_its_rows_came_one_by_one(seed: int, revision: bool) -> None:
    rows = drawn(seed)
    i, text, versions = (pa.array(column) for column in zip(*rows, strict=True))
    found = entities([i, text], versions if revision else None)
    newest, late = one_by_one(rows, revision)
    assert set(found.newest(np.arange(len(rows))).tolist()) == newest
    assert set(np.flatnonzero(found.late(np.arange(len(rows)))).tolist()) == late


def test_null_and_empty_keys_are_two() -> None:
    found = entities([pa.array(["", None, "", None])], None)
    assert found.newest(np.arange(4)).tolist() == [2, 3]


def test_one_row_per_entity_needs_no_choice() -> None:
    found = entities([pa.array([3, 1, 2])], pa.array([1, 1, 1]))
    assert not found.crowded and found.newest(np.arange(3)).tolist() == [0, 1, 2] and not found.late(np.arange(3)).any()


def test_lines_are_escaped_and_nulls_are_marked() -> None:
    texts = pa.array(["a\tb", None, "\\N", "x\r\ny", ""])
    lines = Lines({"n": pa.array(range(5)), "text": texts, "yes": pa.array([True, None, False, True, True])})
    assert bytes(lines.data([0, 1, 2, 3, 4])) == (
        b"0\ta\\tb\ttrue\n1\t\\N\t\\N\n2\t\\\\N\tfalse\n3\tx\\r\\ny\ttrue\n4\t\ttrue\n"
    )
    assert bytes(lines.data([4, 1])) == b"4\t\ttrue\n1\t\\N\t\\N\n"
    assert bytes(lines.data([])) == b""


def test_keys_are_written_as_hexadecimal() -> None:
    keys = pa.array([bytes(range(16)), b"\xff" * 16, b"k" * 16], pa.binary(16))
    assert hexadecimal(keys.slice(1)).to_pylist() == ["\\x" + "ff" * 16, "\\x" + "6b" * 16]
    assert hexadecimal(keys)[0].as_py() == "\\x000102030405060708090a0b0c0d0e0f"


def test_the_breaker_opens_after_failures_in_a_row_and_tries_once_when_half_open() -> None:
    now = [0.0]
    breaker = Breaker(lambda: 3, lambda: 30.0, lambda: now[0])
    for _ in range(2):
        breaker.failed()
    breaker.succeeded()
    for _ in range(2):
        breaker.failed()
    assert breaker.state() is Circuit.CLOSED
    breaker.failed()
    assert breaker.state() is Circuit.OPEN and breaker.seconds_left() == 30
    now[0] = 30
    assert breaker.state() is Circuit.HALF_OPEN
    breaker.failed()
    assert breaker.state() is Circuit.OPEN
    now[0] = 60
    breaker.succeeded()
    assert breaker.state() is Circuit.CLOSED


@pytest.mark.parametrize(
    ("sqlstate", "whose"),
    [
        ("23505", Fault.ROW), ("22003", Fault.ROW), ("P0001", Fault.ROW), ("54000", Fault.ROW),
        ("57014", Fault.TIME), ("55P03", Fault.TIME),
        ("40P01", Fault.DATABASE), ("53100", Fault.DATABASE), ("57P01", Fault.DATABASE), (None, Fault.DATABASE),
        ("42501", Fault.OPERATOR), ("42P01", Fault.OPERATOR), ("28P01", Fault.OPERATOR),
    ],
)  # fmt: skip
def test_a_database_error_is_somebodys_fault(sqlstate: str | None, whose: Fault) -> None:
    assert fault(sqlstate) is whose


def test_a_stale_row_may_have_a_letter_and_needs_none() -> None:
    at, origin = At("normalized", 0, 1), Origin("o", "t", "s", "d@1", "u")

    def step(stale: int, letters: int, fate: Fate = Fate.STALE) -> Step:
        reject = Reject(at=at, origin=origin, raw=b"", reason=Reason.OLDER_REVISION, message="", fate=fate)
        return Step((at,), [Line(at, origin, Fate.STALE, stale)], rejects=[reject] * letters)

    check(step(2, 0))
    check(step(2, 2))
    with pytest.raises(Unbalanced, match="stale rows: the tally says 1, the step carries 2"):
        check(step(1, 2))
    with pytest.raises(Unbalanced, match="rejected rows: the tally says 0, the step carries 1"):
        check(step(1, 1, Fate.REJECTED))
