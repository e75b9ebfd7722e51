"""Snapshots in S3: `<root>/<tenant>/<source>/<scan>/<part>`, one JSON array per line, gzip: `zcat` shows them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Final
from uuid import uuid4

import orjson

from ingestcore.stores.objects import Missing, ObjectStore
from services.s3_lister.checkpoint import Unreadable
from services.s3_lister.snapshot import Part, Snapshot
from services.s3_lister.stage import Seen

LEVEL: Final = 1
"""Keys of one bucket resemble each other: the quickest level already makes them small."""


BATCH: Final = 256
"""Lines encoded at a time: each takes a kilobyte until it is put together with others."""


class SnapshotStore:
    """Reads any snapshot by its URI, writes below `root` (`s3://bucket/prefix/`)."""

    def __init__(self, store: ObjectStore, root: str) -> None:
        self._store, self._root = store, root
        self._folder, self._made = "", 0

    def begin(self, scan: int, fence: int) -> None:
        """What is written from now on gets a folder of its own, also when an earlier try was cut short."""
        self._folder, self._made = f"{self._root}{scan:06}-{fence}-{uuid4().hex[:6]}", 0

    def read(self, uri: str) -> Snapshot:
        """Raises Unreadable, Unavailable, Refused."""
        try:
            return Snapshot.decode(self._get(uri))
        except Unreadable as error:
            raise Unreadable(f"points to {uri}: {error}") from error

    def entries(self, parts: Sequence[Part]) -> Iterator[Seen]:
        """Entries of these parts, ascending; one part is held at a time. Raises Unreadable, Unavailable, Refused."""
        previous = ""
        for part in parts:
            try:
                for line in gzip.decompress(self._get(part.uri)).splitlines():
                    entry = Seen._make(orjson.loads(line))
                    if entry.key <= part.after:
                        continue
                    if entry.key <= previous:
                        raise Unreadable("its keys do not ascend")
                    previous = entry.key
                    yield entry
            except (ValueError, TypeError, EOFError, OSError, zlib.error) as error:
                reason = str(error) if isinstance(error, Unreadable) else "it is damaged"
                raise Unreadable(f"points to a snapshot with the part {part.uri}: {reason}") from error

    def write_part(self, entries: Sequence[Seen]) -> Part:
        """`entries` ascend and are not empty."""
        packed = BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=LEVEL, mtime=0) as file:
            for first in range(0, len(entries), BATCH):
                file.write(b"".join(map(_line, entries[first : first + BATCH])))
        uri = self._put("jsonl.gz", packed.getvalue())
        return Part(uri, entries[-1].key, len(entries))

    def write(self, snapshot: Snapshot) -> str:
        """-> its URI."""
        return self._put("json", snapshot.encode())

    def sweep(self, current: str, snapshot: Snapshot, still_ours: Callable[[], bool]) -> int:
        """Delete what neither the current snapshot nor the one before it uses. -> files deleted.

        What is deleted was listed before the lease was looked at, so a successor's files are never among it.
        """
        used = {current, snapshot.before, *(part.uri for part in snapshot.parts)}
        try:
            if snapshot.before:
                used.update(part.uri for part in self.read(snapshot.before).parts)
        except Unreadable:
            pass  # somebody tidied up by hand
        bucket, prefix = _place(self._root)
        stale = [e.key for e in self._store.list(bucket, prefix) if f"s3://{bucket}/{e.key}" not in used]
        if not still_ours():
            return 0
        for key in stale:
            self._store.delete(bucket, key)
        return len(stale)

    def _put(self, kind: str, data: bytes) -> str:
        uri = f"{self._folder}/{self._made:06}.{kind}"
        self._store.put(*_place(uri), data)
        self._made += 1
        return uri

    def _get(self, uri: str) -> bytes:
        try:
            return self._store.get(*_place(uri))
        except Missing as error:
            raise Unreadable("it does not exist") from error


def _line(entry: Seen) -> bytes:
    return orjson.dumps(tuple(entry), option=orjson.OPT_APPEND_NEWLINE)


def _place(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
