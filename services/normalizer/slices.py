"""Time slices of the keys whose dataset names a window. Pure.

A key is remembered for the window its dataset named when it was published, and belongs to the slice its changelog
record's broker time falls into. A slice is forgotten as a whole, once the partition's clock stands a window behind its
end: so a key lives for the window and an eighth of it longer at most.

The clock is the broker time of the rows read, not of this process: after an outage longer than the window, rows that
came within it still meet their duplicates. It rides in the changelog, so that everyone who replays it forgets the same.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SLICES_PER_WINDOW: Final = 8


class Slice(NamedTuple):
    """Keys of one window and one stretch of broker time. window_ms 0: remembered for ever, in one slice."""

    window_ms: int
    number: int

    @classmethod
    def of(cls, window_ms: int, time_ms: int) -> Slice:
        """-> where a key belongs that was published at this time."""
        return cls(window_ms, time_ms // slice_ms(window_ms) if window_ms else 0)

    def expired(self, clock_ms: int) -> bool:
        if not self.window_ms:
            return False
        return (self.number + 1) * slice_ms(self.window_ms) + self.window_ms <= clock_ms


EVER: Final = Slice(0, 0)


def slice_ms(window_ms: int) -> int:
    return -(-window_ms // SLICES_PER_WINDOW)
