"""Where a source stands, as the checkpoint tells it. Progress waits here until its steps are in Kafka."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import structlog

from ingestcore.stage import Fenced, Retriable
from ingestcore.stores.leases import Outcome
from ingestcore.stores.objects import Refused
from services.s3_lister.checkpoint import Checkpoint
from services.s3_lister.scan import Progress
from services.s3_lister.settings import ListerSettings
from services.s3_lister.snapshot import Snapshot, write_out
from services.s3_lister.snapshot_store import SnapshotStore
from services.s3_lister.tenure import Tenure

log = structlog.get_logger(__name__)


class Journal:
    """Moves one checkpoint, under one tenure. Used by the source's thread only.

    What is `safe` (all its steps are in Kafka) survives a failed pass, so the next one repeats nothing. Only a crash
    loses it.
    """

    def __init__(self, tenure: Tenure, settings: ListerSettings, monotonic: Callable[[], float]) -> None:
        self._tenure, self._settings, self._monotonic = tenure, settings, monotonic
        self._stored, self._checkpoint, self._snapshot = "", Checkpoint(), Snapshot("")
        self._scan, self._before = 0, ""
        self._snapshots: SnapshotStore | None = None
        self._open: deque[Progress] = deque()
        self._safe: Progress | None = None
        self._sent: tuple[str, Checkpoint, Snapshot] | None = None
        self._acknowledged = self._saved_found = 0
        self._tried_at = monotonic()
        self.edited = False
        """An operator changed the checkpoint meanwhile: the pass under way is void."""

    def load(self, snapshots: SnapshotStore, bucket: str) -> tuple[Snapshot, str]:
        """-> what has been handed on, and the key to go on after. Raises Unreadable, NotText, Retriable, Refused."""
        text = self._tenure.read()
        checkpoint = Checkpoint.decode(text) if text else Checkpoint()
        snapshot = snapshots.read(checkpoint.snapshot) if checkpoint.snapshot else Snapshot(bucket)
        start_after = checkpoint.start_after
        if snapshot.bucket != bucket:
            log.info("another bucket: listing anew", source=self._tenure.name, bucket=bucket, before=snapshot.bucket)
            snapshot, start_after = Snapshot(bucket), ""
        self._stored, self._checkpoint, self._snapshot = text, checkpoint, snapshot
        self._snapshots, self._before, self.edited = snapshots, checkpoint.snapshot, False
        self._scan, self._saved_found, self._tried_at = checkpoint.scan + 1, 0, self._monotonic()
        fence = self._tenure.grant.fence if self._tenure.grant else 0
        snapshots.begin(self._scan, fence)
        return snapshot, start_after

    def record(self, progress: Progress) -> None:
        """This far the scan has come; it counts once its step is in Kafka."""
        self._open.append(progress)
        self._follow()

    def acknowledge(self, step: int) -> int:
        """Steps up to this one are in Kafka."""
        self._acknowledged = max(self._acknowledged, step)
        return self._follow()

    def _follow(self) -> int:
        followed = 0
        while self._open and self._open[0].step <= self._acknowledged:
            self._safe = self._open.popleft()
            followed += 1
        return followed

    def due(self) -> bool:
        """Is it time to move the checkpoint?"""
        if self._safe is None:
            return False
        return (
            self._safe.finished
            or self._safe.found - self._saved_found >= self._settings.progress_objects
            or self._monotonic() - self._tried_at >= self._settings.progress_seconds
        )

    def catch_up(self) -> None:
        """Before a new pass: save what the last one made safe, forget what never reached Kafka. Raises as `save`."""
        self._open.clear()
        self.save()

    def save(self) -> None:
        """Move the checkpoint to what is safe. Raises Fenced, Retriable, Refused; may be called again after those."""
        self._tried_at = self._monotonic()
        if self._sent is not None:
            self._replace()  # the answer to the last try is unknown: the same again is no harm
        if self._safe is None or self._snapshots is None:
            return
        progress = self._safe
        parts = write_out(progress.draft, self._snapshots.write_part)
        snapshot = Snapshot(self._snapshot.bucket, parts, progress.in_byte_order, self._before)
        uri = self._checkpoint.snapshot
        if (parts, progress.in_byte_order) != (self._snapshot.parts, self._snapshot.in_byte_order):
            uri = self._snapshots.write(snapshot)
        else:
            snapshot = self._snapshot
        grant = self._tenure.grant
        if grant is None:
            raise self._fenced()
        if not self._stored or (uri, progress.start_after) != (self._checkpoint.snapshot, self._checkpoint.start_after):
            checkpoint = Checkpoint(self._scan, progress.start_after, uri, grant.fence)
            self._sent = checkpoint.encode(), checkpoint, snapshot
            self._replace()
        if self._safe is progress:
            self._safe, self._saved_found = None, progress.found
            if progress.finished and uri != self._before:
                self._sweep()

    def _replace(self) -> None:
        assert self._sent is not None
        text, checkpoint, snapshot = self._sent
        outcome = self._tenure.replace(self._stored, text)
        self._sent = None
        if outcome is Outcome.DONE:
            self._stored, self._checkpoint, self._snapshot = text, checkpoint, snapshot
            return
        self._safe = None
        self._open.clear()
        if outcome is Outcome.FENCED:
            raise self._fenced()
        log.warning("checkpoint was changed by hand: starting again from it", source=self._tenure.name)
        self.edited = True

    def _fenced(self) -> Fenced:
        return Fenced(f"source {self._tenure.name}: another replica has taken it over")

    def _sweep(self) -> None:
        """Leftovers cost only room: trouble here is none of the scan's."""
        assert self._snapshots is not None
        try:
            swept = self._snapshots.sweep(self._checkpoint.snapshot, self._snapshot, self._tenure.valid)
            log.debug("old snapshots deleted", source=self._tenure.name, files=swept)
        except (Retriable, Refused) as error:
            log.debug("old snapshots not deleted", source=self._tenure.name, error=str(error))
