"""What topics take on the brokers' disks, now and once retention is reached. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_DAY_SECONDS: Final = 86_400.0
_SHORTEST_SECONDS: Final = 60.0
"""A rate measured over less says nothing about days."""


@dataclass(frozen=True, slots=True)
class Disk:
    """Estimates for one topic, in bytes over all copies.

    now           what it takes
    day           added a day at the rate since its oldest record; None: too young to tell
    at_retention  what it takes when the oldest records are removed as fast as new ones come; None: never, they are
                  kept, or too young to tell
    """

    now: int
    day: int | None
    at_retention: int | None


def disk(nbytes: int, first_ms: int, now_ms: int, replication: int, retention_ms: int | None) -> Disk:
    """nbytes: of one copy; first_ms: time of the oldest record, 0: empty; retention_ms None or negative: for ever."""
    now = nbytes * replication
    age_seconds = (now_ms - first_ms) / 1000
    if not first_ms:
        return Disk(0, 0, 0)
    if age_seconds < _SHORTEST_SECONDS:
        return Disk(now, None, None)
    day = now / age_seconds * _DAY_SECONDS
    if retention_ms is None or retention_ms < 0:
        return Disk(now, round(day), None)
    # Older than its retention: whole log segments are removed, so it is as large as it gets.
    return Disk(now, round(day), max(now, round(day * retention_ms / 1000 / _DAY_SECONDS)))


def readable(nbytes: int | None) -> str:
    """-> `0 B`, `12 KiB`, `3.4 GiB`."""
    if nbytes is None:
        return "-"
    value, unit = float(nbytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.3g} {unit}"
