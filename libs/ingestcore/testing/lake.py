"""Reads what the sinks wrote, with DuckDB over S3: an independent reader, not the platform's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlparse

import duckdb

_DEFAULT_REGION: Final = "us-east-1"


class S3Endpoints(Protocol):
    """Where the lake is and the keys to it. An empty `s3` means AWS itself."""

    @property
    def s3(self) -> str: ...
    @property
    def s3_access_key(self) -> str: ...
    @property
    def s3_secret_key(self) -> str: ...
    @property
    def s3_region(self) -> str: ...


def connect(endpoints: S3Endpoints) -> duckdb.DuckDBPyConnection:
    """-> a DuckDB connection that reads `s3://` from there. Raises FileNotFoundError: the httpfs wheel is missing."""
    connection = duckdb.connect()
    connection.execute(f"LOAD '{_sql(str(_httpfs()))}'")
    settings = {
        "s3_access_key_id": endpoints.s3_access_key,
        "s3_secret_access_key": endpoints.s3_secret_key,
        "s3_region": endpoints.s3_region or _DEFAULT_REGION,
        # DuckDB would take the environment's, whosoever's it is.
        "s3_session_token": _token_of(endpoints.s3_access_key),
    }
    if endpoints.s3:
        address = urlparse(endpoints.s3)
        settings |= {
            "s3_endpoint": address.netloc,
            "s3_url_style": "path",
            "s3_use_ssl": "true" if address.scheme == "https" else "false",
        }
    for name, value in settings.items():
        connection.execute(f"SET {name} = '{_sql(value)}'")
    # A day's bounds must not depend on where the reader sits.
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _token_of(access_key: str) -> str:
    mine = os.environ.get("AWS_ACCESS_KEY_ID") == access_key
    return os.environ.get("AWS_SESSION_TOKEN", "") if mine else ""


def files(uri: str, dataset: str) -> str:
    """-> the glob of a dataset's Parquet files: all there is to know about the layout."""
    return f"{uri.rstrip('/')}/{dataset}/**/*.parquet"


def rows(connection: duckdb.DuckDBPyConnection, uri: str, dataset: str) -> duckdb.DuckDBPyRelation:
    """-> all rows of a dataset under a sink's URI. Raises duckdb.IOException: there are no files."""
    return connection.sql(f"SELECT * FROM read_parquet('{_sql(files(uri, dataset))}', union_by_name = true)")


def expected_rows(connection: duckdb.DuckDBPyConnection, path: Path) -> duckdb.DuckDBPyRelation:
    """-> the rows a generator says must come out."""
    return connection.read_parquet(str(path))


def fingerprint(rows: duckdb.DuckDBPyRelation, columns: Sequence[str]) -> tuple[int, int]:
    """-> (rows, sum of their 64-bit hashes): equal for equal multisets, and cheap."""
    names = ", ".join(f'"{name}"' for name in columns)
    count, total = rows.aggregate(f"count(*), coalesce(sum(hash({names})), 0)").fetchall()[0]
    return int(count), int(total)


def differences(
    connection: duckdb.DuckDBPyConnection,
    found: duckdb.DuckDBPyRelation,
    expected: duckdb.DuckDBPyRelation,
    columns: Sequence[str],
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Compare as multisets. -> (rows found and not expected, rows expected and not found), ten of each at most."""
    names = ", ".join(f'"{name}"' for name in columns)
    # DuckDB finds the two by their names in this function.
    have, want = found.project(names), expected.project(names)  # noqa: F841
    extra = connection.sql("SELECT * FROM have EXCEPT ALL SELECT * FROM want LIMIT 10").fetchall()
    missing = connection.sql("SELECT * FROM want EXCEPT ALL SELECT * FROM have LIMIT 10").fetchall()
    return extra, missing


def _httpfs() -> Path:
    import duckdb_extension_httpfs

    folder = Path(duckdb_extension_httpfs.__file__).parent / "extensions" / f"v{duckdb.__version__}"
    extension = folder / "httpfs.duckdb_extension"
    if not extension.exists():
        raise FileNotFoundError(
            f"{extension} is missing: duckdb-extension-httpfs must have the version of duckdb ({duckdb.__version__})"
        )
    return extension


def _sql(text: str) -> str:
    return text.replace("'", "''")
