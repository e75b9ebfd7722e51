"""The one-source style of JSON configurations (`s3csv: {bucket, prefix, batchSize, ...}`) in terms of our specs."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ingestcore.datasets.spec import Spec

NAME = "s3csv"
"""The source's and the dataset's name."""


class Deduplication(Spec):
    """`keyFields`: columns that make two rows the same; none: the whole row."""

    enabled: bool = True
    key_fields: tuple[str, ...] = ()


class S3CsvBlock(Spec):
    """batch_size: rows per batch of the sinks; concurrency: parts of an object fetched side by side."""

    bucket: str = Field(min_length=3)
    region: str | None = None
    prefix: str = ""
    batch_size: int | None = Field(default=None, gt=0)
    concurrency: int | None = Field(default=None, gt=0)
    deduplication: Deduplication = Deduplication(enabled=False)

    def source(self) -> dict[str, Any]:
        """-> value of a SourceSpec."""
        where = {"bucket": self.bucket, "prefix": self.prefix, "region": self.region}
        return {"s3": {name: value for name, value in where.items() if value is not None}}

    def dataset(self) -> dict[str, Any]:
        """-> value of a DatasetSpec."""
        if not self.deduplication.enabled:
            return {}
        return {"dedupe": {"keys": self.deduplication.key_fields or "all"}}

    def services(self) -> dict[str, dict[str, str]]:
        """-> settings of services."""
        return {"chunk-downloader": {"max_workers": str(self.concurrency)}} if self.concurrency else {}
