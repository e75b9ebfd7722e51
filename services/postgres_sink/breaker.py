"""A circuit breaker. Pure: told what happened, it says whether to try."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Circuit(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Opens after some failures in a row; after a while one try closes it or opens it anew.

    open_after, half_open_after  failures, seconds; asked each time, since they are settings followed live
    clock                        monotonic seconds
    """

    def __init__(
        self, open_after: Callable[[], int], half_open_after: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        self._open_after, self._half_open_after, self._clock = open_after, half_open_after, clock
        self._failures = 0
        self._opened_at: float | None = None

    def state(self) -> Circuit:
        if self._opened_at is None:
            return Circuit.CLOSED
        return Circuit.OPEN if self.seconds_left() > 0 else Circuit.HALF_OPEN

    def seconds_left(self) -> float:
        """Until a try is allowed; 0: it is."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._half_open_after() - self._clock())

    def failed(self) -> None:
        self._failures += 1
        if self._opened_at is not None or self._failures >= self._open_after():
            self._opened_at = self._clock()

    def succeeded(self) -> None:
        self._failures, self._opened_at = 0, None
