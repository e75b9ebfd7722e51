"""Settings of the lister, read from `INGEST_S3_LISTER_*`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingestcore.datasets.spec import Seconds


class ListerSettings(BaseSettings):
    """How a scan is cut up. The poll interval is the source's own (`poll_interval`).

    lease_seconds     a replica that is silent this long loses its sources to another; renewed three times as often
    step_objects      objects handed on in one transaction at most
    step_seconds      an object found waits at most this long for its transaction to fill; also how often a long
                      listing lets the runtime look after other things
    progress_objects, progress_seconds  the checkpoint moves at whichever comes first: what a crash repeats
    part_entries      entries of one snapshot part; up to twice as many are held in memory (about 300 bytes each)
    sort_entries      keys held in memory while a listing that is not in byte order is sorted
    retry_seconds     pause before looking again at what only an operator can mend
    """

    model_config = SettingsConfigDict(env_prefix="INGEST_S3_LISTER_", frozen=True, extra="ignore")

    lease_seconds: Seconds = Field(default=15.0, gt=0)
    step_objects: int = Field(default=1_000, gt=0)
    step_seconds: Seconds = 1.0
    progress_objects: int = Field(default=10_000, gt=0)
    progress_seconds: Seconds = 5.0
    part_entries: int = Field(default=50_000, gt=0)
    sort_entries: int = Field(default=50_000, gt=0)
    retry_seconds: Seconds = 10.0
