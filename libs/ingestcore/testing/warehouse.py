"""The Postgres end of a fleet in tests: what stands in a sink's tables, what its process and its letters say."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Collection
from typing import Any

import psutil
import psycopg
from psycopg import sql

from devstack import Stack
from ingestcore.testing.fleet import LocalFleet


class Warehouse:
    """sink: its name; schema: its own, made anew here."""

    def __init__(self, fleet: LocalFleet, postgres: Stack, sink: str, schema: str) -> None:
        self.fleet, self.postgres, self.sink, self.schema = fleet, postgres, sink, schema
        self.sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        self.sql(f"CREATE SCHEMA {schema}")

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.postgres.endpoints.postgres, autocommit=True) as connection:
            connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self.schema)))
            done = connection.execute(text.encode())
            return done.fetchall() if done.description else []

    def metric(self, name: str, label: str = "") -> float:
        """label: as it is written, `fate="stale"`. -> its highest value of all replicas of the sink."""
        with urllib.request.urlopen(f"{self.fleet.url()}/metrics", timeout=10) as answer:
            lines = [
                line for line in answer.read().decode().splitlines() if line.startswith(f"{name}{{") and label in line
            ]
        return max((float(line.rpartition(" ")[2]) for line in lines if f'stage="{self.sink}"' in line), default=0.0)

    def letters(self) -> list[tuple[Any, ...]]:
        """-> id, reason and audience of the sink's dead letters in the lake, sorted."""
        found = self.fleet.letters(self.fleet.connection(), ("id", "reason", "audience"))
        return sorted(letter for letter in found if letter[2] == self.sink)


class Memory:
    """How much the resident memory of some processes of a fleet has grown. labels: of `LocalFleet.processes`."""

    def __init__(self, fleet: LocalFleet, labels: Collection[str]) -> None:
        rows = fleet.processes()
        self.pids = {label: rows[label].pid for label in labels}
        self._begun = {label: _resident(pid) for label, pid in self.pids.items()}
        self.grown = dict.fromkeys(self.pids, 0)
        """Bytes at most by label, up to the last look."""

    def look(self) -> None:
        for label, pid in self.pids.items():
            self.grown[label] = max(self.grown[label], _resident(pid) - self._begun[label])


def _resident(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def eventually(what: Callable[[], bool], seconds: float = 60.0) -> None:
    """Raises AssertionError: it is not so in time."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.3)
