"""Objects into blocks: fetched in ranges, inflated, cut at record ends. Several objects side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import structlog

from ingestcore.datasets.registry import Registry
from ingestcore.datasets.spec import S3Source, SourceSpec
from ingestcore.messages.objects import ObjectFacts, ObjectRef
from ingestcore.observe.metrics import Metrics
from ingestcore.stage import Input, OperatorNeeded, Retriable, Stateless, Step
from ingestcore.stores.objects import ObjectStore
from services.chunk_downloader.run import ObjectRun, Task
from services.chunk_downloader.settings import SMALL_OBJECT_BYTES, ChunkDownloaderSettings
from services.chunk_downloader.streams import ObjectBytes, Workers
from services.chunk_downloader.timing import Timing
from services.chunk_downloader.token import Token

WARM_CONNECTIONS: Final = 64
"""Connections that are opened ahead, over all sources: as many a source as are used at once, for the first sources."""

DEFAULT_PROVENANCE: Final = {"purpose": "ingest", "ingestedBy": "ingest-platform"}
"""Of sources that say nothing about it."""

log = structlog.get_logger(__name__)


class Downloader(Stateless):
    """Input: an ObjectRef. Emits its blocks; the header is judged before the first of them.

    A step is one block or one letter, so a crash costs what was read ahead. Fetching, inflating and hashing run on
    `workers`; cutting runs here, on the runtime's thread.
    """

    def __init__(
        self,
        settings: ChunkDownloaderSettings,
        max_row_bytes: int,
        specs: Registry,
        open_store: Callable[[S3Source], ObjectStore],
        blocks_partitions: int,
        workers: Workers,
        metrics: Metrics,
    ) -> None:
        self.concurrency = settings.side_by_side
        self._settings, self._max_row_bytes = settings, max_row_bytes
        self._specs, self._open_store, self._stores = specs, open_store, dict[S3Source, ObjectStore]()
        self._partitions, self._workers, self._metrics = blocks_partitions, workers, metrics
        self._large = threading.BoundedSemaphore(settings.objects)

    def process(self, input: Input, resume: str | None) -> Iterator[Step | None]:
        """Raises NotSeenYet, Unavailable, Refused: try again later; ValueError: not an ObjectRef."""
        task = self._task(input, resume)
        if task.ref.size <= SMALL_OBJECT_BYTES:
            yield from self._read(task)
            return
        while not self._large.acquire(blocking=False):
            yield None
        try:
            yield from self._read(task)
        finally:
            self._large.release()

    def assigned(self, partitions: Sequence[int]) -> None:
        """Work is coming: connections are opened now, and not one by one when the first object waits for them."""
        if not partitions:
            return
        names = [name for name, spec in self._specs.sources().items() if spec.s3 is not None]
        for name in names[: max(1, WARM_CONNECTIONS // self._settings.max_workers)]:
            try:
                source = self._specs.source(name).objects
                store = self._store(source)
            except (OperatorNeeded, Retriable):
                continue  # told when an object of this source comes
            for _ in range(self._settings.max_workers):
                self._workers.fetching.submit(store.warm, source.bucket)

    def aborted(self) -> None:
        """Something failed: credentials may have changed, so clients are made anew."""
        self._stores.clear()

    def _task(self, input: Input, resume: str | None) -> Task:
        ref = ObjectRef.decode(input.value)
        start = Token.decode(resume) if resume else self._beginning(ref)
        spec, source = self._specs.dataset(start.dataset), self._specs.source(ref.source)
        return Task(input.at, ref, _facts(ref, start.dataset, source), source.objects, spec, start, resume is not None)

    def _beginning(self, ref: ObjectRef) -> Token:
        dataset = self._specs.current(ref.dataset)
        return Token(dataset, self._settings.block_bytes, self._max_row_bytes, gzip=False, byte=0, row=1, block=0)

    def _read(self, task: Task) -> Iterator[Step | None]:
        ref, timing = task.ref, Timing()
        get = partial(self._store(task.source).get_range, ref.bucket, ref.key, ref.etag)
        stream = ObjectBytes(get, ref.key, ref.size, self._settings, self._workers, timing)
        run = ObjectRun(task, stream, self._workers, self._partitions, timing)
        try:
            yield from run.steps()
        finally:
            stream.close()
        self._report(task, run, timing)

    def _store(self, source: S3Source) -> ObjectStore:
        if source not in self._stores:
            self._stores[source] = self._open_store(source)
        return self._stores[source]

    def _report(self, task: Task, run: ObjectRun, timing: Timing) -> None:
        seconds = timing.seconds()
        for step, spent in seconds.items():
            self._metrics.observe("ingest_object_seconds", spent, step=step)
        log.info(
            "object read",
            object=task.facts.id,
            uri=task.facts.uri,
            tenant=task.facts.tenant,
            source=task.facts.source,
            dataset=task.facts.dataset,
            size_bytes=task.ref.size,
            resumed_at_byte=task.start.byte if task.resumed else None,
            rows=run.counts.rows,
            blocks=run.counts.blocks,
            dead_letters=run.counts.letters,
            **{f"{step}_seconds": round(spent, 3) for step, spent in seconds.items()},
        )


def _facts(ref: ObjectRef, dataset: str, source: SourceSpec) -> ObjectFacts:
    return ObjectFacts(
        id=ref.id,
        tenant=ref.tenant,
        source=ref.source,
        dataset=dataset,
        uri=ref.uri,
        etag=ref.etag,
        first_seen=ref.first_seen,
        provenance=DEFAULT_PROVENANCE | source.provenance,
    )
