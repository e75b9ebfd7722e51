"""How old is what a stage has taken and not committed? By source, for health."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime

from ingestcore.runtime.recording import Delivery


class Waiting:
    """Earliest `first_seen` of the inputs at work, by source. A rollback changes nothing: they come again.

    Written by the stage's thread, read by any.
    """

    def __init__(self) -> None:
        self._oldest: dict[str, str] = {}
        self._known: dict[str, None] = {}

    def take(self, delivery: Delivery) -> None:
        for source in delivery.sources or ("",):
            before = self._oldest.get(source)
            if before is None or delivery.first_seen < before:
                self._oldest[source] = delivery.first_seen
        self._known.update(dict.fromkeys(delivery.sources))

    def keep(self, held: Iterable[Delivery]) -> None:
        """Only these are left."""
        self._oldest = {}
        for delivery in held:
            self.take(delivery)

    def clear(self) -> None:
        self._oldest = {}

    def by_source(self) -> dict[str, float]:
        """-> seconds, rounded, of every source seen since the start."""
        now, oldest = time.time(), dict(self._oldest)
        return {source: round(seconds_since(oldest.get(source, ""), now) or 0.0, 1) for source in list(self._known)}

    def lag_seconds(self) -> float:
        now, oldest = time.time(), dict(self._oldest)
        return round(max((seconds_since(text, now) or 0.0 for text in oldest.values()), default=0.0), 1)


def seconds_since(first_seen: str, now: float) -> float | None:
    """-> seconds from an ISO 8601 time to `now` (Unix seconds), never negative; None: no such time."""
    try:
        return max(0.0, now - datetime.fromisoformat(first_seen).timestamp())
    except ValueError:
        return None
