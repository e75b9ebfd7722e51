"""What came out of the demo, read by an independent reader, beside what must come out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ingestcore.cli.demo.names import DATASET, LAKE_URI
from ingestcore.testing import lake
from ingestcore.testing.generate import Rows, Truth

_COUNT = "SELECT count(*), count(DISTINCT id) FROM {}"
_TOP = "SELECT country, count(*) FROM {} GROUP BY country ORDER BY 2 DESC, 1 LIMIT 3"


@dataclass(frozen=True, slots=True)
class _Keys:
    """Endpoints as the lake's reader wants them."""

    s3: str
    s3_access_key: str
    s3_secret_key: str
    s3_region: str


def report(console: Console, environ: Mapping[str, str], truth: Truth, expected: Path) -> bool:
    """Print the comparison. -> is everything as it must be?"""
    connection = lake.connect(
        _Keys(
            environ.get("S3_ENDPOINT_URL", ""),
            environ.get("AWS_ACCESS_KEY_ID", ""),
            environ.get("AWS_SECRET_ACCESS_KEY", ""),
            environ.get("AWS_REGION", ""),
        )
    )
    console.print(f"    The rows are Parquet now: [bold]{escape(lake.files(LAKE_URI, DATASET))}[/]", soft_wrap=True)
    try:
        found = lake.rows(connection, LAKE_URI, DATASET)
        letters = lake.rows(connection, LAKE_URI, "dlq")
        right = _compare(console, connection, found, truth, expected)
        return _letters(console, letters, truth) and right
    except duckdb.Error as error:
        console.print(f"[bold red]The lake can't be read: {escape(str(error))}[/]")
        return False


def _compare(
    console: Console,
    connection: duckdb.DuckDBPyConnection,
    found: duckdb.DuckDBPyRelation,
    truth: Truth,
    expected: Path,
) -> bool:
    want = lake.expected_rows(connection, expected)
    columns = Rows().shape.columns
    sums = [f"{lake.fingerprint(rows, columns)[1] % (1 << 64):016x}" for rows in (found, want)]
    checks = [
        ("rows, distinct ids", _cells(found, _COUNT), f"{truth.fresh:,}  {truth.fresh:,}"),
        ("top countries", _cells(found, _TOP), _cells(want, _TOP)),
        ("checksum of rows", *sums),
    ]
    for query in (_COUNT, _TOP):
        console.print(f"    {query.format(repr(lake.files(LAKE_URI, DATASET)))}", soft_wrap=True, markup=False)
    table = Table("DuckDB", "in the lake", "expected", "", box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name, got, wanted in checks:
        table.add_row(name, got, wanted, verdict(got == wanted))
    console.print(table)
    return all(got == wanted for _, got, wanted in checks)


def _letters(console: Console, letters: duckdb.DuckDBPyRelation, truth: Truth) -> bool:
    """Every broken row is a dead letter with its row number and its bytes, and nothing else is."""
    found = Counter((row, bytes(raw).rstrip(b"\r\n")) for row, raw in letters.project('"row", raw').fetchall())
    wanted = Counter((row.row, row.raw) for row in truth.bad)
    right = found == wanted
    table = Table("dead letters", "column", "count", "", box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    query = "SELECT reason, coalesce(\"column\", ''), count(*) FROM t GROUP BY ALL ORDER BY 3 DESC, 1, 2"
    for reason, column, count in letters.query("t", query).fetchall():
        table.add_row(reason, column or "(whole row)", f"{count:,}", "")
    table.add_section()
    table.add_row("row numbers and bytes", "", f"{found.total():,} of {wanted.total():,}", verdict(right))
    console.print(table)
    return right


def verdict(right: bool) -> str:
    return "[green]equal[/]" if right else "[bold red]DIFFERENT[/]"


def _cells(rows: duckdb.DuckDBPyRelation, query: str) -> str:
    """-> the answer as text, one row a line."""
    answer = rows.query("t", query.format("t")).fetchall()
    return "\n".join("  ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row) for row in answer)
