"""A stand-in for an object store, in memory: for tests of stages, with faults on request. Not S3: the contract test
holds it to what the real one does."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from ingestcore.stores.objects import Changed, Listed, Missing, Refused, Unavailable


class MemoryStore:
    """`ObjectStore` over dictionaries. Thread-safe. Lists in byte order.

    faults    raised by the next calls of get_range, one each
    on_range  told (key, first, size) before each get_range
    warmed    calls of warm
    """

    def __init__(self, *buckets: str) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[str, dict[str, tuple[bytes, str]]] = {bucket: {} for bucket in buckets}
        self.faults: deque[Exception] = deque()
        self.warmed = 0
        self.on_range: Callable[[str, int, int], None] = lambda key, first, size: None

    def list(self, bucket: str, prefix: str, start_after: str = "") -> Iterator[Listed]:
        with self._lock:
            found = sorted(self._bucket(bucket).items(), key=lambda entry: entry[0].encode())
        for key, (data, etag) in found:
            if key.startswith(prefix) and key.encode() > start_after.encode():
                yield Listed(key, etag, len(data), "2026-01-01T00:00:00Z")

    def get(self, bucket: str, key: str) -> bytes:
        with self._lock:
            return self._object(bucket, key)[0]

    def get_range(self, bucket: str, key: str, etag: str, first: int, size: int) -> bytes:
        self.on_range(key, first, size)
        with self._lock:
            if self.faults:
                raise self.faults.popleft()
            if size == 0:
                return b""
            data, now = self._object(bucket, key)
        if now != etag:
            raise Changed(f"reading s3://{bucket}/{key}: the object is not the version that was asked for")
        if first + size > len(data):
            raise Changed(f"reading s3://{bucket}/{key}: the object has only {len(data)} bytes, more were listed")
        return data[first : first + size]

    def put(self, bucket: str, key: str, data: bytes) -> None:
        with self._lock:
            self._bucket(bucket)[key] = (bytes(data), etag_of(data))

    def put_new(self, bucket: str, key: str, data: bytes | Path) -> bool:
        with self._lock:
            if key in self._bucket(bucket):
                return False
            written = data.read_bytes() if isinstance(data, Path) else bytes(data)
            self._bucket(bucket)[key] = (written, etag_of(written))
            return True

    def delete(self, bucket: str, key: str) -> None:
        with self._lock:
            self._bucket(bucket).pop(key, None)

    def check(self, bucket: str) -> None:
        with self._lock:
            self._bucket(bucket)

    def warm(self, bucket: str) -> None:
        with self._lock:
            self.warmed += 1

    def _bucket(self, bucket: str) -> dict[str, tuple[bytes, str]]:
        if bucket not in self._buckets:
            raise Refused(f"opening bucket {bucket}: there is no such bucket")
        return self._buckets[bucket]

    def _object(self, bucket: str, key: str) -> tuple[bytes, str]:
        try:
            return self._bucket(bucket)[key]
        except KeyError:
            raise Missing(f"reading s3://{bucket}/{key}: there is no such object") from None


def etag_of(data: bytes) -> str:
    """-> what S3 says of an object put in one piece."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def busy() -> Unavailable:
    """-> 503 SlowDown, as a store gives up on it."""
    return Unavailable("reading: S3 asks for a lower rate (SlowDown)", throttled=True)
