"""A source: objects named in a file, one address a line."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ingestcore.datasets.spec import Seconds
from ingestcore.runtime.service import Context, OpenSource, Service
from ingestcore.settings import Settings


class ManifestSettings(Settings):
    """Which file is read, and whose objects it names."""

    model_config = SettingsConfigDict(env_prefix="INGEST_MANIFEST_SOURCE_")

    file: Path
    """Addresses `s3://bucket/key`, one a line; lines are only ever added"""

    source: str
    """Source of the configuration they belong to: its bucket, credentials, routes and provenance count"""

    poll_interval: Seconds = Field(default=10.0, gt=0)
    """Pause before looking for new lines"""


def build(context: Context) -> OpenSource:
    from manifest_source.source import Manifest

    return lambda name: Manifest(name, context)


SERVICE = Service(
    name="manifest-source",
    summary="Hands on the objects that a file names",
    settings=ManifestSettings,
    build=build,
    consumes=None,
    produces=("objects",),
    sources=("manifest",),
)
