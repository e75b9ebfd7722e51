"""Query engines whose DDL is known."""

from __future__ import annotations

from enum import StrEnum


class Engine(StrEnum):
    ATHENA = "athena"
    TRINO = "trino"
    DUCKDB = "duckdb"
