"""Settings of the downloader, and the memory they ask for."""

from __future__ import annotations

import os
from typing import Annotated, Final

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from ingestcore.datasets.spec import Size
from ingestcore.messages.blocks import SEGMENT_BYTES
from ingestcore.settings import Settings

KIB: Final = 1 << 10
MIB: Final = 1 << 20

GRID_BYTES: Final = 64 * KIB
"""Ranges are multiples of this, so that compressed bytes reach the inflater in the same slices whatever the range."""

SMALL_OBJECT_BYTES: Final = SEGMENT_BYTES
"""Objects up to this size need no slot of `objects`."""


class ChunkDownloaderSettings(Settings):
    """What is fetched side by side, and the memory it may take."""

    model_config = SettingsConfigDict(env_prefix="INGEST_CHUNK_DOWNLOADER_")

    chunk_size: Annotated[Size, Field(ge=64 * KIB, le=64 * MIB, multiple_of=GRID_BYTES)] = 16 * MIB
    """Bytes of one range GET"""

    max_workers: int = Field(default_factory=lambda: min(16, os.cpu_count() or 1), ge=1, le=64)
    """Range GETs at once, over all objects; left out: one per CPU, at most 16"""

    compute_workers: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1, le=64)
    """Threads that inflate and hash; left out: one per CPU, at most 4"""

    buffer_chunks: int = Field(default=4, ge=1, le=64)
    """Ranges of one object in memory: being fetched, waiting, being cut"""

    block_bytes: Annotated[Size, Field(ge=64 * KIB, le=32 * MIB)] = 2 * MIB
    """Bytes of one block at most; a longer record is a block of its own"""

    objects: int = Field(default=4, ge=1, le=256)
    """Large objects side by side"""

    small_objects: int = Field(default=16, ge=1, le=256)
    """Objects up to 4 MiB may fill up to this many side by side"""

    memory_budget: Size = 256 * MIB
    """Bytes of all ranges in memory. Besides it an object side by side takes at most a block being made, a record, and
    blocks that wait for the hash of their 4 MiB segment"""

    @property
    def side_by_side(self) -> int:
        return max(self.objects, self.small_objects)

    @model_validator(mode="after")
    def _fits_memory(self) -> ChunkDownloaderSettings:
        needed = self.objects * self.buffer_chunks * self.chunk_size
        if needed > self.memory_budget:
            raise ValueError(
                f"memory_budget is too small: objects {self.objects} × buffer_chunks {self.buffer_chunks} × "
                f"chunk_size {_mib(self.chunk_size)} = {_mib(needed)}, memory_budget is {_mib(self.memory_budget)}: "
                f"raise it or lower one of the others"
            )
        return self


def _mib(size: int) -> str:
    return f"{size / MIB:g} MiB"
