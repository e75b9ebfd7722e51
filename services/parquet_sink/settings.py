"""Settings of the Parquet sink."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ingestcore.datasets.spec import Size
from ingestcore.settings import Settings


class ParquetSinkSettings(Settings):
    """What a process may use. What a file holds is the sink spec's business."""

    model_config = SettingsConfigDict(env_prefix="INGEST_PARQUET_SINK_")

    held_bytes: Size = Field(default=256 << 20, gt=0)
    """Input of all partitions held at most; the largest partitions are written beyond it"""

    buffer_bytes: Size = Field(default=64 << 20, gt=0)
    """Rows in memory that are in no row group yet, all open files together"""

    row_group_bytes: Size = Field(default=32 << 20, gt=0)
    """Arrow bytes of one row group at most: with 500 columns `batch_size` rows would not fit in memory"""

    upload_threads: int = Field(default=4, gt=0, le=64)
    """Files sent side by side"""

    zstd_level: int = Field(default=1, ge=1, le=19)
    """1 is smallest and quickest on typed rows with provenance; higher levels cost CPU and save nothing"""
