"""Where a sink's files and claims are: keys below its uri, and the sending of finished files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ingestcore.messages.lake import Span, file_name, folder, place_of
from ingestcore.stores.objects import ObjectStore
from services.parquet_sink.claims import ClaimLog, put_once


@dataclass(frozen=True, slots=True)
class Folder:
    """One folder of a table, and the version of the dataset its files belong to.

    table    the dataset's name, or `dlq`; dataset: `name@version` as written into the footer
    date     ISO date of the broker's timestamp, UTC
    """

    table: str
    version: str
    dataset: str
    tenant: str
    date: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A complete local Parquet file. `variant` tells files of one folder and span apart that differ in columns."""

    path: Path
    folder: Folder
    variant: str
    rows: int


class Lake:
    """One bucket and prefix. Nothing but Parquet is put below a table's folder: engines read every file there."""

    def __init__(self, store: ObjectStore, uri: str, upload_threads: int) -> None:
        self._store, self.uri = store, uri
        self.bucket, self._prefix = place_of(uri)
        self._senders = ThreadPoolExecutor(upload_threads, "upload")

    def check(self) -> None:
        """Raises Refused: the bucket is missing or may not be read."""
        self._store.check(self.bucket)

    def claims(self, topic_id: str, partition: int, log_start: Callable[[], int] = lambda: 0) -> ClaimLog:
        """-> the log of one partition, not read yet. log_start: first offset the partition holds; 0 of a topic that is
        gone."""
        return ClaimLog(self._store, self.bucket, f"{self._prefix}_ingest/", f"{topic_id}/{partition}", log_start)

    def note_letters_of(self, topic_id: str) -> list[str]:
        """Remember that dead letters of this topic id are kept here. -> all topic ids remembered."""
        folder = f"{self._prefix}_ingest/dlq/"
        put_once(self._store, self.bucket, folder + topic_id, b"dead letters of this topic id\n")
        return sorted(entry.key.removeprefix(folder) for entry in self._store.list(self.bucket, folder))

    def key(self, file: Finished, span: Span) -> str:
        """-> where a file belongs. The same for the same claim, whoever writes it."""
        where = file.folder
        name = file_name(span, where.version, file.variant)
        return folder(self._prefix, where.table, where.tenant, where.date) + name

    def send(self, files: Iterable[tuple[Finished, Span]]) -> None:
        """Send files side by side and remove the local ones. What is there already was written for the same claim and
        stays. Raises Unavailable, Refused."""
        wanted = list(files)
        jobs = [self._senders.submit(self._send, file, span) for file, span in wanted]
        failures = [job.exception() for job in jobs]
        for file, _ in wanted:
            file.path.unlink(missing_ok=True)
        for failure in filter(None, failures):
            raise failure

    def _send(self, file: Finished, span: Span) -> None:
        put_once(self._store, self.bucket, self.key(file, span), file.path)
