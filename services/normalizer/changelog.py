"""One record of `dedupe-changelog`: the new keys of a commit that share a window, and the partition's clock. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ingestcore.stage import Gap, Input
from services.normalizer.keys import KEY_BYTES
from services.normalizer.slices import Slice

CHANGELOG: Final = "dedupe-changelog"
RECORD_BYTES: Final = 16 << 20
"""Largest value; a multiple of the key size."""


@dataclass(frozen=True, slots=True)
class KeysRecord:
    """keys       one after the other, 16 bytes each
    window_ms  how long they are remembered; 0: for ever
    clock_ms   broker time up to which rows had been read when it was written; 0: unknown
    """

    keys: bytes
    window_ms: int
    clock_ms: int

    def headers(self) -> dict[str, str]:
        named = {"window_ms": self.window_ms, "clock_ms": self.clock_ms}
        return {name: str(ms) for name, ms in named.items() if ms}

    @classmethod
    def decode(cls, record: Input) -> KeysRecord:
        """Raises Gap: the log is damaged."""
        if len(record.value) % KEY_BYTES:
            at = record.at
            raise Gap(f"{at.topic}[{at.partition}]@{at.offset} does not hold whole keys: the log is damaged")
        return cls(record.value, _ms(record.headers, "window_ms"), _ms(record.headers, "clock_ms"))

    def slice(self, time_ms: int) -> Slice:
        """-> where its keys belong; time_ms: the record's broker time."""
        return Slice.of(self.window_ms, time_ms)


def _ms(headers: Mapping[str, str], name: str) -> int:
    return int(headers.get(name, "0"))
