"""How rows and dead letters lie in a Parquet lake: what a sink writes and what looks into it must agree on.

    <uri>/<dataset>/tenant=<tenant>/ingest_date=<date>/<topic id>-<partition>-<first>-<last offset>-v<version>.parquet

Nothing but Parquet lies below a table's folder: engines read every file there. The footer names the records of Kafka a
file was made of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import pyarrow as pa

from ingestcore.messages.rows import PROVENANCE, PROVENANCE_TYPE, ROW

LAYOUT_FORMAT: Final = 1
"""Version of the files and of the claims that lead to them."""
LETTERS_TABLE: Final = "dlq"
"""Folder of the dead letters, beside the datasets'."""
PARTITION_COLUMNS: Final = ("tenant", "ingest_date")
"""In the names of folders: Hive's way."""
PLATFORM_FIELDS: Final = (pa.field(PROVENANCE, PROVENANCE_TYPE, nullable=False), pa.field(ROW, pa.int64()))
"""Columns of a dataset's table after its own."""

LETTERS_SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("retryable", pa.bool_(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("tenant", pa.string()),
        pa.field("source", pa.string()),
        pa.field("dataset", pa.string()),
        pa.field("dataset_version", pa.string()),
        pa.field("object_uri", pa.string()),
        pa.field("object_id", pa.string()),
        pa.field("row", pa.int64()),
        # Rows it stands for.
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("column", pa.string()),
        pa.field("value", pa.string()),
        pa.field("byte_first", pa.int64()),
        pa.field("byte_last", pa.int64()),
        pa.field("raw", pa.binary(), nullable=False),
        # The input it came from.
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int64(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("reentry", pa.string()),
        pa.field("audience", pa.string()),
        pa.field("first_seen", pa.string()),
        # JSON text of all facts.
        pa.field("facts", pa.string(), nullable=False),
        pa.field("_provenance", PROVENANCE_TYPE),
    ]
)
"""Columns of the dead letters' table."""

_NAME = re.compile(r"(?P<topic_id>.+)-(?P<partition>\d+)-(?P<first>\d{20})-(?P<last>\d{20})-v(?P<rest>.+)\.parquet")


@dataclass(frozen=True, slots=True)
class Span:
    """Where the rows of a file come from. `topic` is the logical name; first and last offset are inclusive."""

    topic: str
    topic_id: str
    partition: int
    first: int
    last: int

    def holds(self, topic_id: str, partition: int, offset: int) -> bool:
        return (self.topic_id, self.partition) == (topic_id, partition) and self.first <= offset <= self.last


def footer(dataset: str, span: Span) -> dict[str, str]:
    """-> what a file says of itself. `dataset`: `name@version`, or LETTERS_TABLE."""
    return {
        "ingest.format": str(LAYOUT_FORMAT),
        "ingest.dataset": dataset,
        "ingest.topic": span.topic,
        "ingest.topic_id": span.topic_id,
        "ingest.partition": str(span.partition),
        "ingest.first_offset": str(span.first),
        "ingest.last_offset": str(span.last),
    }


def span_in(metadata: Mapping[bytes, bytes] | None) -> Span | None:
    """-> what a footer says; None: it is none of ours."""
    told = {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in (metadata or {}).items()}
    try:
        return Span(
            told["ingest.topic"],
            told["ingest.topic_id"],
            int(told["ingest.partition"]),
            int(told["ingest.first_offset"]),
            int(told["ingest.last_offset"]),
        )
    except (KeyError, ValueError):
        return None


def file_name(span: Span, version: str, variant: str) -> str:
    """-> the same for the same claim, whoever writes it. `variant` tells files apart that differ in columns."""
    return f"{span.topic_id}-{span.partition}-{span.first:020}-{span.last:020}-v{version}{variant}.parquet"


def span_named(key: str, topic: str) -> Span | None:
    """-> the records a file of a table is made of, by its name; None: it is none of ours."""
    found = _NAME.fullmatch(key.rpartition("/")[2])
    if found is None:
        return None
    return Span(topic, found["topic_id"], int(found["partition"]), int(found["first"]), int(found["last"]))


def place_of(uri: str) -> tuple[str, str]:
    """`s3://bucket/prefix` -> bucket, and the prefix with `/` at its end, or empty."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return bucket, prefix.rstrip("/") + "/" if prefix.strip("/") else ""


def table_folder(prefix: str, table: str) -> str:
    """-> key prefix of a table's files; `prefix` as of `place_of`."""
    return f"{prefix}{quote(table, safe='')}/"


def folder(prefix: str, table: str, tenant: str, date: str) -> str:
    """-> key prefix of one folder of a table. `date`: ISO."""
    return f"{table_folder(prefix, table)}tenant={quote(tenant, safe='')}/ingest_date={date}/"
