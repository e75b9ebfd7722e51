"""When the demo's rows can be read in Postgres: asked again and again while they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from types import TracebackType
from typing import Any, Final

import psycopg

from ingestcore.cli.demo.names import EVENTS, SCHEMA

LOOK_SECONDS: Final = 0.02
"""How exact a moment is."""
_TABLE: Final = f"{SCHEMA}.{EVENTS}"


class Arrivals:
    """A reader of the table, beside the producers. `seen`: when a row was there first, monotonic seconds, by event."""

    def __init__(self, url: str) -> None:
        """Makes the demo's schema anew. Raises psycopg.Error."""
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE".encode())
        self._connection.execute(f"CREATE SCHEMA {SCHEMA}".encode())
        self.seen: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="arrivals", daemon=True)

    def wait(self, events: Collection[str], timeout_seconds: float) -> None:
        """Return when all of them are there, or not in time."""
        deadline = time.monotonic() + timeout_seconds
        while not self.seen.keys() >= set(events) and time.monotonic() < deadline and self._thread.is_alive():
            time.sleep(LOOK_SECONDS)

    def rows(self) -> list[tuple[Any, ...]]:
        """-> the whole table, once the reader has ended. Raises psycopg.Error."""
        return self._connection.execute(f"SELECT id, amount, customer, event FROM {_TABLE}".encode()).fetchall()

    def __enter__(self) -> Arrivals:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                found = self._connection.execute(f"SELECT event FROM {_TABLE}".encode()).fetchall()
            except psycopg.errors.UndefinedTable:
                continue  # the sink makes it with the first rows
            now = time.monotonic()
            for (event,) in found:
                self.seen.setdefault(event, now)
