"""One scan: list, merge with the snapshot before, hand on what is new, in steps that can be taken up again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Final

import structlog

from ingestcore.datasets.spec import SourceSpec
from ingestcore.messages.moments import iso_utc
from ingestcore.messages.objects import ObjectRef
from ingestcore.stage import Emit, Retriable, Step
from ingestcore.stores.objects import Listed, ObjectStore, Refused
from ingestcore.stores.sorted_files import SortedFiles
from services.s3_lister.checkpoint import Unreadable
from services.s3_lister.settings import ListerSettings
from services.s3_lister.snapshot import Draft, Rewrite, Snapshot, write_out
from services.s3_lister.snapshot_store import SnapshotStore
from services.s3_lister.stage import Change, OrderBroken, Verdict, is_folder_marker, merge, router

log = structlog.get_logger(__name__)

EXAMPLES: Final = 20
LOOK_ENTRIES: Final = 500
"""Entries between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a scan stands after the step with number `step`: what the checkpoint says once that step is in Kafka.

    found  objects handed on since the scan began
    """

    step: int
    draft: Draft
    start_after: str
    in_byte_order: bool
    found: int
    finished: bool = False


@dataclass(slots=True)
class Counts:
    """What a scan met. `unmatched`: no pattern of `route` fits; `examples`: the first of them."""

    listed: int = 0
    found: int = 0
    unmatched: int = 0
    own: int = 0
    examples: list[str] = field(default_factory=list)


class Scan:
    """Yields (step or None, progress or None); the last pair carries the finished progress.

    A store that goes away midway ends the scan with its error, but first what was found is handed on. Raises
    Retriable (Unavailable), Refused, Unreadable.
    """

    def __init__(
        self,
        source: str,
        spec: SourceSpec,
        own: re.Pattern[str],
        store: ObjectStore,
        snapshots: SnapshotStore,
        settings: ListerSettings,
        temporary: Path,
        *,
        steps: count[int],
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._source, self._spec, self._own = source, spec, own
        self._store, self._snapshots, self._settings, self._temporary = store, snapshots, settings, temporary
        self._steps, self._now, self._monotonic = steps, now, monotonic
        self._step = 0
        self._found: list[Listed] = []
        self._datasets: list[str] = []
        self.counts = Counts()

    def run(self, base: Snapshot, start_after: str) -> Iterator[tuple[Step | None, Progress | None]]:
        """Scan on from `start_after` over what `base` says has been handed on."""
        s3 = self._spec.objects
        if base.in_byte_order:
            rewrite = Rewrite(base.parts, start_after, self._settings.part_entries)
            # Some stores answer with nothing at all to a key before the prefix.
            listing = self._store.list(s3.bucket, s3.prefix, start_after if start_after > s3.prefix else "")
            try:
                yield from self._merged(self._wanted(listing), rewrite, start_after, in_byte_order=True)
                return
            except OrderBroken as broken:
                log.info("listing is sorted before it is compared, from now on", reason=str(broken))
                parts = write_out(rewrite.draft(self._last), self._snapshots.write_part)
                base, start_after = Snapshot(s3.bucket, parts), ""
                self.counts = Counts(found=self.counts.found)
        rewrite = Rewrite(base.parts, start_after, self._settings.part_entries)
        with SortedFiles(self._temporary, rows_in_memory=self._settings.sort_entries) as files:
            for _ in self._looks(self._fill(files)):
                yield None, None
            listing = (Listed(*row) for row in files.rows() if row[0] > start_after)
            yield from self._merged(listing, rewrite, start_after, in_byte_order=False)

    def _wanted(self, listing: Iterator[Listed]) -> Iterator[Listed]:
        own, counts = self._own.match, self.counts
        for listed in listing:
            if own(listed.key):
                counts.own += 1
            elif not is_folder_marker(listed):
                counts.listed += 1
                yield listed

    def _fill(self, files: SortedFiles) -> Iterator[None]:
        for listed in self._wanted(self._store.list(self._spec.objects.bucket, self._spec.objects.prefix)):
            files.add((listed.key, listed.etag, listed.size, listed.last_modified))
            yield None

    def _looks(self, entries: Iterator[None]) -> Iterator[None]:
        """-> one None every `step_seconds`."""
        looked = self._monotonic()
        for number, _ in enumerate(entries, 1):
            if number % LOOK_ENTRIES == 0 and self._monotonic() - looked >= self._settings.step_seconds:
                yield None
                looked = self._monotonic()

    def _merged(
        self, listing: Iterator[Listed], rewrite: Rewrite, start_after: str, *, in_byte_order: bool
    ) -> Iterator[tuple[Step | None, Progress | None]]:
        snapshot = self._snapshots.entries(rewrite.to_read)
        changes = merge(listing, snapshot, router(self._spec, self._source), start_after)
        self._last, trouble = start_after, None
        looked = self._monotonic()

        def progress() -> Progress:
            reached = self._last if in_byte_order else start_after
            return Progress(self._step, rewrite.draft(self._last), reached, in_byte_order, self.counts.found)

        try:
            for number, change in enumerate(changes, 1):
                self._take(change, rewrite)
                if len(self._found) >= self._settings.step_objects:
                    yield self._handed_on(), progress()
                    looked = self._monotonic()
                if number % LOOK_ENTRIES == 0:
                    rewrite.spill(self._snapshots.write_part)
                    if self._monotonic() - looked >= self._settings.step_seconds:
                        yield (self._handed_on(), progress()) if self._found else (None, None)
                        looked = self._monotonic()
        except (Retriable, Refused, Unreadable, OrderBroken) as error:
            trouble = error
        if trouble is not None:
            if self._found:
                yield self._handed_on(), progress()
            raise trouble
        step = self._handed_on() if self._found else None
        yield step, Progress(self._step, rewrite.finished(), "", in_byte_order, self.counts.found, finished=True)

    def _take(self, change: Change, rewrite: Rewrite) -> None:
        listed = change.listed
        if listed is None:
            assert change.before is not None
            self._last = change.before.key
        else:
            self._last = listed.key
            if change.verdict is Verdict.NEW or change.verdict is Verdict.CHANGED:
                assert change.after is not None
                self._found.append(listed)
                self._datasets.append(change.after.dataset)
            elif change.verdict is Verdict.UNMATCHED:
                self.counts.unmatched += 1
                if len(self.counts.examples) < EXAMPLES:
                    self.counts.examples.append(listed.key)
        rewrite.take(self._last, change)

    def _handed_on(self) -> Step:
        """-> a step with all objects found and not handed on yet."""
        spec, first_seen = self._spec, iso_utc(self._now(), "microseconds")
        emits = []
        for listed, dataset in zip(self._found, self._datasets, strict=True):
            ref = ObjectRef(
                tenant=spec.tenant,
                source=self._source,
                dataset=dataset,
                bucket=spec.objects.bucket,
                key=listed.key,
                etag=listed.etag,
                size=listed.size,
                last_modified=listed.last_modified,
                first_seen=first_seen,
            )
            emits.append(Emit("objects", ref.encode(), key=bytes.fromhex(ref.id)))
        self.counts.found += len(emits)
        self._found, self._datasets = [], []
        self._step = next(self._steps)
        return Step(covers=(), tally=(), emits=emits, resume=str(self._step))
