"""What a sink makes of one input: the same shape for rows and for dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from ingestcore.stage import Input, Line
from services.parquet_sink.files import Encoder, Piece


@dataclass(frozen=True, slots=True)
class Parcel:
    """One input, read.

    table     dataset name, without its version; "": of none
    lines     ledger lines, as delivered
    letter    id of the dead letter (16 bytes); None: rows
    nbytes    memory it takes while it is held
    """

    table: str
    lines: tuple[Line, ...]
    pieces: tuple[Piece, ...]
    rows: int
    nbytes: int
    letter: bytes | None = None


class Content(Protocol):
    """Reads one kind of input."""

    @property
    def encoder(self) -> Encoder: ...

    def read(self, input: Input) -> Parcel:
        """Raises ValueError: not an input of this kind."""


def ingest_date(timestamp_ms: int) -> str:
    """-> ISO date (UTC) of the broker's timestamp. An input read again lands in the same folder."""
    return _date_of(timestamp_ms // 86_400_000)


@lru_cache(maxsize=64)
def _date_of(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()
