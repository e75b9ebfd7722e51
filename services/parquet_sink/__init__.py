"""The Parquet sink: writes rows (`ingest.normalized`) or dead letters (`from: dlq`) as Parquet on S3, exactly once."""

from __future__ import annotations

from typing import Any

from ingestcore.runtime.service import Context, Service
from services.parquet_sink.settings import ParquetSinkSettings


def build(context: Context) -> Any:
    """-> the stage of one sink."""
    from services.parquet_sink.wiring import open_sink

    return open_sink(context)


SERVICE = Service(
    name="parquet-sink",
    summary="Writes rows or dead letters as Parquet on S3, exactly once",
    settings=ParquetSinkSettings,
    build=build,
    consumes="normalized",
    per="sink",
)
