"""A sink: published rows as JSON lines in a folder."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import SettingsConfigDict

from ingestcore.runtime.service import Context, Service
from ingestcore.settings import Settings
from ingestcore.stage import Stage


class JsonLinesSettings(Settings):
    """Where the files go."""

    model_config = SettingsConfigDict(env_prefix="INGEST_JSONL_SINK_")

    folder: Path = Path("rows")
    """Made where it is missing; one file per message below `<dataset>/`"""


def build(context: Context) -> Stage:
    from jsonl_sink.stage import JsonLines

    settings: JsonLinesSettings = context.settings
    settings.folder.mkdir(parents=True, exist_ok=True)
    return JsonLines(settings.folder, lambda: context.topics.topic_id("normalized"))


SERVICE = Service(
    name="jsonl-sink",
    summary="Writes published rows as JSON lines",
    settings=JsonLinesSettings,
    build=build,
    consumes="normalized",
)
