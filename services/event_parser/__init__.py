"""The event-parser: turns events into typed, keyed rows and exact dead letters."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ingestcore.datasets.spec import Size
from ingestcore.runtime.service import Context, Service
from ingestcore.settings import Settings
from ingestcore.tabular.one_core import keep_to_one_core


class EventParserSettings(Settings):
    """How events are put together into messages, and what is no event."""

    model_config = SettingsConfigDict(env_prefix="INGEST_EVENT_PARSER_")

    gather_bytes: Size = Field(default=4 << 20, gt=0)
    """Events are held and emitted together once this much of them is held, or at the commit: small messages cost more
    than their rows"""

    gather_events: int = Field(default=10_000, gt=0)
    """... or this many"""

    message_bytes: Size = Field(default=4 << 20, gt=0, le=16 << 20)
    """An emitted message is about this large at most"""

    max_depth: int = Field(default=64, gt=0, le=250)
    """Levels of objects and arrays inside each other; a deeper body is dead-lettered"""


def build(context: Context) -> Any:
    """-> the stage."""
    keep_to_one_core()
    from services.event_parser.stage import EventParser

    settings: EventParserSettings = context.settings
    return EventParser(
        context.specs,
        context.topics.partitions("typed"),
        gather_bytes=settings.gather_bytes,
        gather_events=settings.gather_events,
        message_bytes=settings.message_bytes,
        max_depth=settings.max_depth,
    )


SERVICE = Service(
    name="event-parser",
    summary="Events to typed rows with keys; what is no row of its dataset to dead letters",
    settings=EventParserSettings,
    build=build,
    consumes="events",
    produces=("typed", "dlq", "ledger"),
    takes="http",
)
