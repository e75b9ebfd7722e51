"""The Postgres sink: writes rows (`ingest.normalized`) into tables, newest revision of each entity, exactly once."""

from __future__ import annotations

from typing import Any

from ingestcore.runtime.service import Context, Service
from services.postgres_sink.settings import PostgresSinkSettings


def build(context: Context) -> Any:
    """-> the stage of one sink."""
    from services.postgres_sink.wiring import open_sink

    return open_sink(context)


SERVICE = Service(
    name="postgres-sink",
    summary="Writes rows into Postgres tables, the newest revision of each entity",
    settings=PostgresSinkSettings,
    build=build,
    consumes="normalized",
    per="sink",
)
