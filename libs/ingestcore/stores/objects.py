"""What the platform asks of an object store, and the errors it may answer with. Implementations: `s3`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ingestcore.reasons import Reason
from ingestcore.stage import OperatorNeeded, Retriable


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a listing. `etag` without quotes; `size` bytes; `last_modified` ISO 8601 UTC."""

    key: str
    etag: str
    size: int
    last_modified: str


class Unavailable(Retriable):
    """The store is away, slow or throttling (503 SlowDown, reset, time-out, short body): wait and try again.

    `throttled` says it asked for a lower rate.
    """

    def __init__(self, message: str, *, throttled: bool = False) -> None:
        super().__init__(message)
        self.throttled = throttled
        if throttled:
            self.reason = Reason.RATE_LIMITED.value


class Missing(Exception):
    """No such object (404)."""


class Changed(Exception):
    """The object is no longer the version that was asked for (412 on If-Match)."""


class Refused(OperatorNeeded):
    """Wrong credentials, missing bucket, missing permission: only an operator can mend it. One clear message."""


class ObjectStore(Protocol):
    """A bucket-addressed store. Thread-safe. Every method may raise Unavailable or Refused."""

    def list(self, bucket: str, prefix: str, start_after: str = "") -> Iterator[Listed]:
        """Entries in the store's own order, read page by page."""

    def get(self, bucket: str, key: str) -> bytes:
        """A whole small object. Raises Missing."""

    def get_range(self, bucket: str, key: str, etag: str, first: int, size: int) -> bytes:
        """Exactly `size` bytes from `first` of that version (If-Match). Raises Missing, Changed; a short body is
        Unavailable."""

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write or replace."""

    def put_new(self, bucket: str, key: str, data: bytes | Path) -> bool:
        """Write only if the key does not exist (If-None-Match: *). -> written? A conflict (409, 412) is False."""

    def delete(self, bucket: str, key: str) -> None:
        """Missing is fine."""

    def check(self, bucket: str) -> None:
        """Raises Refused with one clear message when the bucket is missing or may not be read."""

    def warm(self, bucket: str) -> None:
        """Have a connection open that a later call finds ready. Raises nothing: that call tells what is wrong."""
