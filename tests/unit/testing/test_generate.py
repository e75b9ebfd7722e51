"""Generated files hold what their truth says, judged by DuckDB and by plain Python."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from pathlib import Path

import duckdb
import pytest

from ingestcore.testing.generate import FIRST_ID, Kind, Rows, generate, generate_objects
from ingestcore.testing.shapes import BadKind


def records(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return list(csv.reader(file))[1:]


@pytest.mark.parametrize("kind", list(Kind))
def test_good_rows_are_the_expected_ones_and_repeats_are_exact(tmp_path: Path, kind: Kind) -> None:
    path, expected = tmp_path / "rows.csv", tmp_path / "expected.parquet"
    truth = generate(path, megabytes=0.3, seed=7, duplicates=0.2, bad=0.01, kind=kind, expected=expected)
    found = records(path)
    bad = {row.row for row in truth.bad}
    good = [tuple(record) for number, record in enumerate(found, 1) if number not in bad]
    counted = Counter(good)
    wanted = duckdb.read_parquet(str(expected)).project("id").fetchall()
    assert len(found) == truth.rows == truth.fresh + truth.duplicates + len(truth.bad)
    assert len(counted) == truth.fresh
    assert sorted(int(record[0]) for record in counted) == sorted(row[0] for row in wanted)
    assert truth.nbytes == path.stat().st_size
    if kind is not Kind.WIDE:
        assert 0.1 < truth.duplicates / truth.rows < 0.3


@pytest.mark.parametrize("kind", [Kind.NARROW, Kind.CRLF, Kind.TRICKY])
def test_typed_values_are_what_the_text_says(tmp_path: Path, kind: Kind) -> None:
    path, expected = tmp_path / "rows.csv", tmp_path / "expected.parquet"
    generate(path, megabytes=0.1, bad=0, duplicates=0, kind=kind, expected=expected)
    typed = duckdb.connect()
    typed.execute("SET TimeZone = 'UTC'")
    rows = typed.read_parquet(str(expected)).project("* REPLACE (epoch(timestamp)::BIGINT AS timestamp)").fetchall()
    for text, (id, timestamp, user, amount, country, note) in zip(records(path), rows, strict=True):
        seconds = (
            duckdb.execute("SELECT epoch(?::TIMESTAMP)::BIGINT", [text[1].rstrip("Z")]).fetchall()[0][0]
            if id < (FIRST_ID + 20)
            else timestamp
        )
        assert (int(text[0]), seconds, text[2], float(text[3]), text[4]) == (id, timestamp, user, amount, country)
        assert text[5] == (note or "")


def test_bad_rows_stand_where_the_truth_says(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    truth = generate(path, megabytes=1, seed=3, bad=0.002)
    lines = path.read_bytes().split(b"\n")
    assert all(lines[row.row] == row.raw for row in truth.bad)
    assert {row.kind for row in truth.bad} == set(BadKind)


def test_a_seed_makes_the_same_bytes_again(tmp_path: Path) -> None:
    texts = []
    for name in ("a.csv.gz", "b.csv.gz"):
        generate(tmp_path / name, megabytes=0.2, seed=5)
        texts.append((tmp_path / name).read_bytes())
    assert texts[0] == texts[1]
    assert gzip.decompress(texts[0]).startswith(b"id,timestamp,user,amount,country,note\n")


def test_small_objects_repeat_rows_of_each_other(tmp_path: Path) -> None:
    expected = tmp_path / "expected.parquet"
    truths = generate_objects(tmp_path / "many", objects=50, rows_each=20, duplicates=0.3, expected=expected)
    found = {tuple(record) for truth in truths for record in records(truth.path)}
    assert len(found) == sum(truth.fresh for truth in truths) == duckdb.read_parquet(str(expected)).shape[0]
    assert any(truth.duplicates for truth in truths)


def test_the_spec_of_a_shape_is_a_valid_dataset() -> None:
    assert Rows(kind=Kind.NARROW).spec.primary_key == ("id",)
    assert len(Rows(kind=Kind.WIDE).spec.fields) == 500
