"""When the demo's rows can be read in Postgres."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import psycopg

from ingestcore.cli.demo.names import EVENTS, SCHEMA
from ingestcore.testing.first_seen import FirstSeen

LOOK_SECONDS: Final = 0.02
"""How exact a moment is."""
_TABLE: Final = f"{SCHEMA}.{EVENTS}"


class Arrivals(FirstSeen[str]):
    """A reader of the table, beside the producers: rows by event."""

    def __init__(self, url: str) -> None:
        """Makes the demo's schema anew. Raises psycopg.Error."""
        super().__init__(url, LOOK_SECONDS)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE".encode())
            connection.execute(f"CREATE SCHEMA {SCHEMA}".encode())

    def look(self, connection: psycopg.Connection[Any]) -> Iterable[str]:
        return [event for (event,) in connection.execute(f"SELECT event FROM {_TABLE}".encode())]

    def rows(self) -> list[tuple[Any, ...]]:
        """-> the whole table. Raises psycopg.Error."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            return connection.execute(f"SELECT id, amount, customer, event FROM {_TABLE}".encode()).fetchall()
