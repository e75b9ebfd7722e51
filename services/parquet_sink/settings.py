"""Settings of the Parquet sink."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingestcore.datasets.spec import Size


class ParquetSinkSettings(BaseSettings):
    """Read from INGEST_PARQUET_SINK_*. What a file holds is the sink spec's business; this is what a process may use.

    held_bytes       input bytes of all partitions held at most; the largest partitions are written beyond it
    buffer_bytes     rows in memory that are in no row group yet, all open files together
    row_group_bytes  Arrow bytes of one row group at most: with 500 columns `batch_size` rows would not fit in memory
    upload_threads   files sent side by side
    zstd_level       1 is smallest and quickest on typed rows with provenance; higher levels cost CPU and save nothing
    """

    model_config = SettingsConfigDict(env_prefix="INGEST_PARQUET_SINK_", frozen=True, extra="ignore")

    held_bytes: Size = Field(default=256 << 20, gt=0)
    buffer_bytes: Size = Field(default=96 << 20, gt=0)
    row_group_bytes: Size = Field(default=32 << 20, gt=0)
    upload_threads: int = Field(default=4, gt=0, le=64)
    zstd_level: int = Field(default=1, ge=1, le=19)
