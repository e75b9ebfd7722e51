"""When rows of a database can first be read: asked again and again, in a thread of its own, while they come."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import psycopg

RowT = TypeVar("RowT", bound=Hashable)


class FirstSeen(ABC, Generic[RowT]):
    """url: of the database; look_seconds: how exact a moment is. Looks within the `with` block.

    `seen`: when a row was there first, monotonic seconds.
    """

    def __init__(self, url: str, look_seconds: float) -> None:
        self.seen: dict[RowT, float] = {}
        self._url, self._look_seconds = url, look_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="first-seen", daemon=True)

    @abstractmethod
    def look(self, connection: psycopg.Connection[Any]) -> Iterable[RowT]:
        """-> rows that are there, those of an earlier look too or not. A table that is not there yet has none."""

    def wait(self, rows: Collection[RowT], timeout_seconds: float) -> bool:
        """-> are all of them there? Returns when they are, or when they are not in time."""
        wanted, deadline = set(rows), time.monotonic() + timeout_seconds
        while not self.seen.keys() >= wanted and time.monotonic() < deadline and self._thread.is_alive():
            time.sleep(self._look_seconds)
        return self.seen.keys() >= wanted

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._stop.wait(self._look_seconds):
                try:
                    found = self.look(connection)
                except psycopg.errors.UndefinedTable:
                    continue  # the sink makes it with the first rows
                now = time.monotonic()
                for row in found:
                    self.seen.setdefault(row, now)
