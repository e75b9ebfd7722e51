"""How long to wait before a crashed process is started again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FAST_TRIES = 2
FAST_SECONDS = 0.2
FIRST_SECONDS = 1.0
LONGEST_SECONDS = 30.0
SOUND_SECONDS = 60.0
"""A process that ran this long was sound: what ended it is a new matter."""


@dataclass
class Backoff:
    """Two fast tries, then 1, 2, 4 ... 30 s."""

    failures: int = 0

    def next_seconds(self, ran_seconds: float) -> float:
        """-> the wait after a process ended that had run this long."""
        if ran_seconds >= SOUND_SECONDS:
            self.failures = 0
        self.failures += 1
        if self.failures <= FAST_TRIES:
            return FAST_SECONDS
        return min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** (self.failures - FAST_TRIES - 1))
