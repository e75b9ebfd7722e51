"""A sink: what it reads and where it writes."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field

from ingestcore.datasets.postgres_sink import PostgresSink
from ingestcore.datasets.spec.s3 import S3Access
from ingestcore.datasets.spec_values import Name, Seconds, Size, Spec


class ParquetSink(S3Access):
    """Parquet files on S3."""

    uri: str = Field(pattern=r"^s3://[^/]{3,}(/.*)?$")
    """`s3://bucket/prefix/`; files lie below `<prefix>/<dataset>/`"""

    max_age: Seconds = 30.0
    """A row is in a file at most this long after it was read"""

    max_bytes: Size = 64 << 20
    """Input of one partition that makes a file"""

    batch_size: int = Field(default=131_072, gt=0)
    """Rows per row group and batch"""


class SinkSpec(Spec):
    """One sink: exactly one of the places below."""

    parquet: ParquetSink | None = None
    """Where and how files are written"""

    postgres: PostgresSink | None = None
    """Which database, and how its tables are kept"""

    from_: Literal["normalized", "dlq"] = Field(
        default="normalized", validation_alias=AliasChoices("from", "from_"), serialization_alias="from"
    )
    """What it reads; `dlq` makes a lake of dead letters, with the original bytes"""

    datasets: tuple[Name, ...] | None = None
    """Which ones; left out: all"""

    def takes(self, dataset: str) -> bool:
        """dataset: its name, without version."""
        return self.datasets is None or dataset in self.datasets

    @property
    def lake(self) -> ParquetSink:
        """Of a sink with `parquet:`."""
        assert self.parquet is not None
        return self.parquet

    @property
    def database(self) -> PostgresSink:
        """Of a sink with `postgres:`."""
        assert self.postgres is not None
        return self.postgres


PLACES = ("parquet", "postgres")
"""Keys of a sink that say where it writes; `<key>-sink` is the service that does."""
