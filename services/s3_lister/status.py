"""What a lister says of itself in `/health/detailed` and metrics."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog

from ingestcore.messages.moments import iso_utc
from ingestcore.observe.metrics import Metrics
from services.s3_lister.scan import Counts

log = structlog.get_logger(__name__)


class ListerStatus:
    """Written by the source's thread, read by any: every field is replaced as a whole."""

    def __init__(self, source: str, metrics: Metrics, now: Callable[[], datetime]) -> None:
        self._source, self._metrics, self._now = source, metrics, now
        self._finished, self._seconds, self._last = now(), 0.0, Counts()
        self._scans, self._found = 0, 0
        self.waiting = ""
        self.warnings: tuple[str, ...] = ()
        self.lease = ""
        self.standing_by = False
        """Another replica acts for the source."""

    def wait(self, reason: str) -> None:
        """Say once what is awaited."""
        if reason != self.waiting:
            log.warning("lister waits", source=self._source, reason=reason)
        self.waiting = reason

    def go_on(self) -> None:
        if self.waiting:
            log.info("lister goes on", source=self._source, waited_for=self.waiting)
        self.waiting = ""

    def handed_on(self, objects: int) -> None:
        """These are in Kafka."""
        self._found += objects
        self._metrics.count("ingest_objects_found_total", objects, source=self._source)

    def scanned(self, counts: Counts, seconds: float) -> None:
        """A scan came to its end."""
        self._finished, self._seconds, self._last = self._now(), seconds, counts
        self._scans += 1
        self._metrics.set("ingest_listing_seconds", seconds, source=self._source)
        self._metrics.set("ingest_unmatched_keys", counts.unmatched, source=self._source)

    def as_dict(self) -> dict[str, Any]:
        """`lag_seconds`: since the last finished scan, or since the start."""
        last = self._last
        return {
            "lag_seconds": round((self._now() - self._finished).total_seconds(), 1),
            "waiting": self.waiting,
            "warnings": list(self.warnings),
            "lease": self.lease,
            "standing_by": self.standing_by,
            "scans": self._scans,
            "last_scan": iso_utc(self._finished, "seconds") if self._scans else None,
            "last_scan_seconds": round(self._seconds, 3),
            "objects_listed": last.listed,
            "objects_new": last.found,
            "objects_found_total": self._found,
            "own_output_skipped": last.own,
            "unmatched": last.unmatched,
            "unmatched_examples": list(last.examples),
        }
