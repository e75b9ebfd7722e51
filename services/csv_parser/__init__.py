"""The csv-parser: turns raw blocks into typed, keyed rows and exact dead letters."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ingestcore.datasets.spec import Size
from ingestcore.runtime.service import Context, Service
from ingestcore.settings import Settings
from ingestcore.tabular.one_core import keep_to_one_core


class CsvParserSettings(Settings):
    """How blocks are put together into messages."""

    model_config = SettingsConfigDict(env_prefix="INGEST_CSV_PARSER_")

    gather_bytes: Size = Field(default=4 << 20, gt=0)
    """Blocks smaller than `large_bytes` are held and emitted together once this much is held, or at the commit: small
    messages cost more than their rows"""

    large_bytes: Size = Field(default=4 << 20, gt=0)
    """A block of this size is emitted at once"""

    message_bytes: Size = Field(default=4 << 20, gt=0, le=16 << 20)
    """An emitted message is about this large at most"""


def build(context: Context) -> Any:
    """-> the stage."""
    keep_to_one_core()
    from services.csv_parser.stage import CsvParser

    settings: CsvParserSettings = context.settings
    return CsvParser(
        context.specs,
        context.topics.partitions("typed"),
        storm_limit=context.platform.storm_limit,
        gather_bytes=settings.gather_bytes,
        large_bytes=settings.large_bytes,
        message_bytes=settings.message_bytes,
    )


SERVICE = Service(
    name="csv-parser",
    summary="Blocks to typed rows with keys; bad rows to dead letters",
    settings=CsvParserSettings,
    build=build,
    consumes="blocks",
    produces=("typed", "dlq", "ledger"),
)
