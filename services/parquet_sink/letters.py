"""Dead letters as rows of the lake's `dlq` table, each letter once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import orjson
import pyarrow as pa

from ingestcore.datasets.names import DEFAULT_TENANT
from ingestcore.datasets.provenance import source_metadata
from ingestcore.messages.dead_letters import DeadLetter
from ingestcore.messages.lake import LETTERS_SCHEMA, LETTERS_TABLE
from ingestcore.reasons import MEANING
from ingestcore.stage import Fate, Input, Line, Origin
from services.parquet_sink.content import Parcel, ingest_date
from services.parquet_sink.files import Piece
from services.parquet_sink.lake import Folder

TABLE_VERSION: Final = "1"
_LETTER_BYTES: Final = 2048
"""What a letter costs in memory beside its raw bytes: headers, Python objects, its ledger line."""


class LettersEncoder:
    def gather(self, items: Sequence[DeadLetter]) -> list[DeadLetter]:
        return list(items)

    def table(self, items: Sequence[DeadLetter]) -> pa.Table:
        return pa.Table.from_pylist([_row(letter) for letter in items], schema=LETTERS_SCHEMA)


class LettersContent:
    encoder = LettersEncoder()

    def read(self, input: Input) -> Parcel:
        letter = DeadLetter.of(input.value, input.headers)
        if letter.object:
            origin = Origin.of(letter.object)
        else:
            origin = Origin(letter.origin, DEFAULT_TENANT, "", "", "")
        folder = Folder(LETTERS_TABLE, TABLE_VERSION, LETTERS_TABLE, origin.tenant, ingest_date(input.timestamp_ms))
        nbytes = len(letter.raw) + _LETTER_BYTES
        rows = 1 if input.rows is None else input.rows
        lines = (Line(input.at, origin, Fate.DELIVERED, rows),)
        table = letter.object.table if letter.object else ""
        return Parcel(table, lines, (Piece(folder, None, letter, 1, nbytes),), 1, nbytes, bytes.fromhex(letter.id))


def _row(letter: DeadLetter) -> dict[str, Any]:
    facts, about = letter.facts, letter.object
    row: dict[str, Any] = {
        "id": letter.id,
        "reason": letter.reason.value,
        "retryable": MEANING[letter.reason].retryable,
        "message": letter.message,
        "stage": letter.stage,
        "row": _whole_number(facts.get("row")),
        "rows": letter.rows,
        "column": facts.get("column"),
        "value": facts.get("value"),
        "byte_first": _whole_number(facts.get("byte_first")),
        "byte_last": _whole_number(facts.get("byte_last")),
        "raw": letter.raw,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reentry": letter.reentry or None,
        "audience": letter.audience or None,
        "first_seen": letter.first_seen or None,
        "facts": orjson.dumps(dict(facts), option=orjson.OPT_SORT_KEYS).decode(),
    }
    if about is None:
        return row
    dataset, _, version = about.dataset.rpartition("@")
    return row | {
        "tenant": about.tenant,
        "source": about.source,
        "dataset": dataset or version,
        "dataset_version": version if dataset else None,
        "object_uri": about.uri,
        "object_id": about.id,
        "_provenance": source_metadata(about) | {"contentHash": hashlib.sha256(letter.raw).hexdigest()},
    }


def _whole_number(text: str | None) -> int | None:
    """A fact that is no number (a list of rows) stays readable in `facts`."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None
