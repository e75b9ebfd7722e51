"""The lister as a source: lease, specs, waiting. What a scan does is in `scan`, what is remembered in `journal`."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final
from uuid import uuid4

import structlog

from ingestcore.datasets.secrets import SecretMissing
from ingestcore.datasets.spec import ParquetSink, S3Source, SinkSpec, SourceSpec
from ingestcore.runtime.service import Context
from ingestcore.stage import Fenced, Retriable, Step
from ingestcore.stores.leases import Leases, NotText
from ingestcore.stores.objects import ObjectStore, Refused
from services.s3_lister.checkpoint import ADVICE, Checkpoint, Unreadable
from services.s3_lister.journal import Journal
from services.s3_lister.scan import Scan
from services.s3_lister.settings import ListerSettings
from services.s3_lister.snapshot_store import SnapshotStore
from services.s3_lister.stage import own_output
from services.s3_lister.status import ListerStatus
from services.s3_lister.tenure import RENEWALS, Tenure

log = structlog.get_logger(__name__)

DEFAULT_POLL_SECONDS: Final = 10.0
"""While the source's spec is not known."""


class Lister:
    """One source of the configuration. One thread scans and acknowledges; `status` may be asked from any.

    An object is handed on at least once: a crash repeats what was handed on since the checkpoint last moved, other
    trouble repeats nothing.
    """

    def __init__(
        self,
        name: str,
        context: Context,
        leases: Leases,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        renew_beside: bool = True,
    ) -> None:
        self.name = name
        self.term: object = None
        self._context, self._leases = context, leases
        self._settings: ListerSettings = context.settings
        self._now, self._monotonic, self._renew_beside = now, monotonic, renew_beside
        self._status = ListerStatus(name, context.metrics, now)
        self._stores: dict[S3Source | ParquetSink | None, ObjectStore] = {}
        self._steps = count(1)
        self._sizes: dict[str, int] = {}
        self._tenure: Tenure | None = None
        self._journal: Journal | None = None
        self._pause = DEFAULT_POLL_SECONDS
        self._unsaved = False

    def scan(self) -> Iterator[Step | None]:
        """One pass; None first, once the lease is held.

        Raises Retriable: Redis, S3 or the spec is away. What only an operator can mend, and a lease that another
        replica holds, end the pass and are said in `status`.
        """
        try:
            spec = self._context.specs.source(self.name)
            self._pause = spec.objects.poll_interval
            yield from self._pass(spec)
        except (Refused, Unreadable, NotText) as error:
            self._pause = min(self._pause, self._settings.retry_seconds)
            self._status.wait(str(error))
        except Fenced as error:
            self._stand_by(str(error))
        except Retriable as error:
            self._status.wait(str(error))
            raise

    def acknowledged(self, token: str | None) -> None:
        """Steps up to this token are in Kafka: move the checkpoint when it is time.

        Raises Fenced. Redis or S3 away is no trouble here: the move is made up for later.
        """
        journal, tenure = self._journal, self._tenure
        if token is None or journal is None or tenure is None:
            return
        journal.acknowledge(int(token))
        self._status.handed_on(self._sizes.pop(token, 0))
        if tenure.grant is None:
            raise Fenced(f"source {self.name}: another replica has taken it over")
        if journal.due():
            try:
                journal.save()
                self._unsaved = False
            except (Retriable, Refused) as error:
                self._unsaved = True
                self._status.wait(str(error))

    def pause_seconds(self) -> float:
        return self._pause

    def status(self) -> dict[str, Any]:
        """For `/health/detailed`: see `ListerStatus.as_dict`."""
        return self._status.as_dict()

    def check(self) -> None:
        """Raises Refused: a bucket is missing or may not be read, or Redis wants other credentials; Retriable: S3,
        Redis or the spec is away."""
        spec = self._context.specs.source(self.name)
        self._store(spec.objects).check(spec.objects.bucket)
        root, place = self._work()
        self._store(place).check(root.removeprefix("s3://").partition("/")[0])
        self._leases.check()

    def close(self) -> None:
        """Leave cleanly: move the checkpoint to what is in Kafka and give up the lease."""
        try:
            if self._journal is not None and self._tenure is not None and self._tenure.valid():
                self._journal.catch_up()
        except (Retriable, Refused, Fenced) as error:
            log.debug("checkpoint not moved at the end", source=self.name, error=str(error))
        if self._tenure is not None:
            self._tenure.close()

    def _pass(self, spec: SourceSpec) -> Iterator[Step | None]:
        tenure, journal = self._hold(spec.tenant)
        if not tenure.take(self._fence_stored(tenure)):
            self._stand_by(f"source {self.name} is listed by another replica ({tenure.other})")
            return
        self._status.standing_by = False
        self.term = tenure.grant.fence if tenure.grant else None
        self._status.lease = tenure.grant.value if tenure.grant else ""
        yield None
        began = self._monotonic()
        scan, steps = self._begin(spec, journal)
        for step, progress in steps:
            if not self._may_act(tenure, journal):
                return
            if progress is not None:
                journal.record(progress)
            if not self._unsaved:
                self._status.go_on()
            if step is not None:
                self._sizes[str(step.resume)] = len(step.emits)
                yield step
            elif progress is None:
                yield None
        self._status.scanned(scan.counts, self._monotonic() - began)
        if journal.due():
            journal.save()

    def _begin(self, spec: SourceSpec, journal: Journal) -> tuple[Scan, Iterator[Any]]:
        self._sizes.clear()
        journal.catch_up()
        self._unsaved = False
        root, place = self._work()
        snapshots = SnapshotStore(self._store(place), f"{root}{spec.tenant}/{self.name}/")
        try:
            snapshot, start_after = journal.load(snapshots, spec.objects.bucket)
        except (Unreadable, NotText) as error:
            raise self._unreadable(spec, error) from error
        own = own_output(spec, self._sinks(), root, self._context.platform.s3_endpoint_url)
        self._status.warnings = own.warnings
        scan = Scan(
            self.name,
            spec,
            own.pattern,
            self._store(spec.objects),
            snapshots,
            self._settings,
            self._context.state,
            steps=self._steps,
            now=self._now,
            monotonic=self._monotonic,
        )
        return scan, self._explained(spec, scan.run(snapshot, start_after))

    def _explained(self, spec: SourceSpec, steps: Iterator[Any]) -> Iterator[Any]:
        """A part of the snapshot may turn out unreadable only when the merge reaches it."""
        try:
            yield from steps
        except Unreadable as error:
            raise self._unreadable(spec, error) from error

    def _unreadable(self, spec: SourceSpec, error: Exception) -> Unreadable:
        return Unreadable(f"checkpoint:{spec.tenant}:{self.name} {error}: {ADVICE}")

    def _hold(self, tenant: str) -> tuple[Tenure, Journal]:
        name = f"{tenant}:{self.name}"
        if self._tenure is None or self._journal is None or self._tenure.name != name:
            self.close()
            holder = f"{self._context.platform.replica}@{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
            self._tenure = Tenure(
                self._leases,
                name,
                holder,
                self._settings.lease_seconds,
                monotonic=self._monotonic,
                renew_beside=self._renew_beside,
            )
            self._journal = Journal(self._tenure, self._settings, self._monotonic)
        return self._tenure, self._journal

    def _fence_stored(self, tenure: Tenure) -> int:
        """A counter that was lost must not start below what the checkpoint has seen."""
        if tenure.valid():
            return 0
        try:
            return Checkpoint.decode(tenure.read()).fence
        except (Unreadable, NotText):
            return 0  # said when the pass loads it

    def _may_act(self, tenure: Tenure, journal: Journal) -> bool:
        if journal.edited:
            self._pause = 0.0
            return False
        if tenure.valid():
            return True
        if tenure.grant is None:
            raise Fenced(f"source {self.name}: another replica has taken it over")
        raise Retriable(f"the lease of source {self.name} ran out (Redis away, or this process stood still)")

    def _stand_by(self, reason: str) -> None:
        self._pause = min(self._pause, self._settings.lease_seconds / RENEWALS)
        self._status.lease = f"held by {self._tenure.other}" if self._tenure else ""
        self._status.standing_by = True
        self._status.wait(reason)

    def _work(self) -> tuple[str, ParquetSink | None]:
        """-> where snapshots are kept (`s3://bucket/…/snapshots/`) and whose store that is."""
        if self._context.platform.work_uri:
            return f"{self._context.platform.work_uri.rstrip('/')}/snapshots/", None
        lakes = [item for item in self._context.specs.sinks().items() if item[1].parquet]
        sinks = sorted(lakes, key=lambda item: (item[1].from_ != "normalized", item[0]))
        if not sinks:
            raise Retriable(
                "no place to keep snapshots: apply a parquet sink, or set INGEST_WORK_URI=s3://bucket/prefix"
            )
        parquet = self._context.specs.sink(sinks[0][0]).lake
        return f"{parquet.uri.rstrip('/')}/_ingest/snapshots/", parquet

    def _sinks(self) -> dict[str, SinkSpec]:
        """-> by name. Secrets of other services' sinks need not be known here: where they are not, as applied."""
        found = self._context.specs.sinks()
        for name in found:
            with contextlib.suppress(SecretMissing):
                found[name] = self._context.specs.sink(name)
        return found

    def _store(self, spec: S3Source | ParquetSink | None) -> ObjectStore:
        if spec not in self._stores:
            if len(self._stores) >= 4:
                self._stores.clear()  # the specs have changed a few times
            self._stores[spec] = self._context.store(spec)
        return self._stores[spec]
