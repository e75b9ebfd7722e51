"""Settings of the Postgres sink."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ingestcore.datasets.spec import Seconds
from ingestcore.settings import Settings


class PostgresSinkSettings(Settings):
    """What a process may do. Where rows go and how long is waited is the sink spec's business."""

    model_config = SettingsConfigDict(env_prefix="INGEST_POSTGRES_SINK_")

    silence: Seconds = Field(default=5.0, gt=0)
    """How much longer than `statement_timeout` a database may say nothing at all before its connection is dropped"""
