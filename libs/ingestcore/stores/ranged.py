"""An object as a file that can be sought: for readers that want a footer and some of what lies before it."""

from __future__ import annotations

import io
from typing import Final

from ingestcore.stores.objects import ObjectStore

TAIL_BYTES: Final = 64 << 10
"""Fetched with the first read: a Parquet footer is nearly always in it."""


class RangedFile(io.RawIOBase):
    """Read-only. Reads may raise Missing, Changed, Unavailable, Refused."""

    def __init__(self, store: ObjectStore, bucket: str, key: str, etag: str, size: int) -> None:
        super().__init__()
        self._store, self._place, self._size, self._at = store, (bucket, key, etag), size, 0
        self._tail_first = max(0, size - TAIL_BYTES)
        self._tail = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readall(self) -> bytes:
        return self.read(-1)

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        data = self._range(self._at, wanted)
        self._at += len(data)
        return data

    def _range(self, first: int, size: int) -> bytes:
        if first < self._tail_first:
            return self._store.get_range(*self._place, first, size)
        if not self._tail and self._size:
            self._tail = self._store.get_range(*self._place, self._tail_first, self._size - self._tail_first)
        return self._tail[first - self._tail_first :][:size]
