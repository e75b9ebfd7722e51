"""Settings of the lister, read from `INGEST_S3_LISTER_*`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ingestcore.datasets.spec import Seconds
from ingestcore.settings import Settings


class ListerSettings(Settings):
    """How a scan is cut up. The poll interval is the source's own (`poll_interval`)."""

    model_config = SettingsConfigDict(env_prefix="INGEST_S3_LISTER_")

    lease_seconds: Seconds = Field(default=15.0, gt=0)
    """A replica that is silent this long loses its sources to another; renewed three times as often"""

    step_objects: int = Field(default=1_000, gt=0)
    """Objects handed on in one transaction at most"""

    step_seconds: Seconds = 1.0
    """An object found waits at most this long for its transaction to fill; also how often a long listing lets the
    runtime look after other things"""

    progress_objects: int = Field(default=10_000, gt=0)
    """The checkpoint moves after this many objects: what a crash repeats"""

    progress_seconds: Seconds = 5.0
    """... or after this long, whichever comes first"""

    part_entries: int = Field(default=50_000, gt=0)
    """Entries of one snapshot part; up to twice as many are held in memory, about 300 bytes each"""

    sort_entries: int = Field(default=50_000, gt=0)
    """Keys held in memory while a listing that is not in byte order is sorted"""

    retry_seconds: Seconds = 10.0
    """Pause before looking again at what only an operator can mend"""
