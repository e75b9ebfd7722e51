"""A record of an internal topic -> what `ingest tap` prints of it. Pure.

`typed` and `normalized` row by row, JSON topics as JSON, blocks as the text of their records, events as their body,
dead letters with their facts, the changelog key by key. Bytes are shown in hex where they are hashes, as text where
they are text.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from ingestcore.cli.looking.tap_filters import Filters
from ingestcore.datasets.spec import Dialect
from ingestcore.messages.blocks import Block
from ingestcore.messages.dead_letters import DeadLetter
from ingestcore.messages.events import Event
from ingestcore.messages.moments import iso_utc
from ingestcore.messages.objects import ObjectFacts
from ingestcore.messages.rows import OBJECT, read
from ingestcore.stage import Input
from ingestcore.tabular.records import Records
from ingestcore.tabular.transcode import to_utf8

Shown = dict[str, Any]

_SLICE_ROWS: Final = 256
"""Rows made into Python values at a time: a limit must not cost a whole message."""
_KEY_BYTES: Final = 16
_HASHES: Final = frozenset({"objects", "blocks", "dlq"})
"""Topics whose record keys are hashes."""


@dataclass
class Asked:
    """What to show. whole: records, not their rows; dialect_of: how the blocks of a `name@version` are written."""

    filters: Filters
    whole: bool
    dialect_of: Callable[[str], Dialect] = lambda dataset: Dialect()


def lines(input: Input, asked: Asked) -> Iterator[Shown]:
    """-> one value per row, or one for the record; nothing where a filter does not hold.

    A value that can't be read is shown as it is, with a `problem`.
    """
    if not asked.filters.header_fits(input.headers):
        return
    about = record(input)
    try:
        yield from _READERS[input.at.topic](input, about, asked)
    except ValueError as error:
        if not asked.filters.where:
            yield about | {"problem": str(error), "value": text_of(input.value)}


def record(input: Input) -> Shown:
    """-> coordinates, key and headers."""
    moment = datetime.fromtimestamp(input.timestamp_ms / 1000, UTC)
    return {
        "topic": input.at.topic,
        "partition": input.at.partition,
        "offset": input.at.offset,
        "timestamp": iso_utc(moment),
        "key": (input.key.hex() if input.at.topic in _HASHES else text_of(input.key)) if input.key else None,
        "headers": {name: _header(text) for name, text in input.headers.items()},
    }


def encoded(shown: Shown) -> bytes:
    """-> one line of JSON, its line end included."""
    return orjson.dumps(shown, default=_default, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)


def text_of(data: bytes) -> str | Shown:
    """-> the text, or `{"base64": …}` where it is none."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _header(text: str) -> Any:
    if not text.startswith(("{", "[")):
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _default(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _rows(input: Input, about: Shown, asked: Asked) -> Iterator[Shown]:
    filters = asked.filters
    if not filters.dataset_fits(input.headers.get("dataset", "")):
        return
    batch = read(input.value)
    places = filters.rows(batch)
    if asked.whole:
        if len(places) or not batch.num_rows:
            yield about | {
                "bytes": len(input.value),
                "rows": batch.num_rows,
                "columns": {field.name: str(field.type) for field in batch.schema},
            }
        return
    for start in range(0, len(places), _SLICE_ROWS):
        some = places[start : start + _SLICE_ROWS]
        for place, row in zip(some.tolist(), batch.take(some).to_pylist(), strict=True):
            yield about | {"index": place, "row": readable(row)}


def readable(row: Mapping[str, Any]) -> Shown:
    """-> a row with the facts of its object as a mapping; hashes become hex when it is encoded."""
    facts = row.get(OBJECT)
    return {**row, OBJECT: orjson.loads(facts)} if isinstance(facts, str) else dict(row)


def _json(input: Input, about: Shown, asked: Asked) -> Iterator[Shown]:
    document = orjson.loads(input.value) if input.value else None
    described: Mapping[str, Any] = document if isinstance(document, dict) else {"value": document}
    origin = described.get("origin", described)
    dataset = str(origin.get("dataset", "")) or input.key.decode("utf-8", "replace").removeprefix("dataset/")
    filters = asked.filters
    if filters.dataset_fits(dataset) and filters.object_fits(origin) and filters.document_fits(described):
        yield about | {"value": document}


def _letter(input: Input, about: Shown, asked: Asked) -> Iterator[Shown]:
    letter = DeadLetter.of(input.value, input.headers)
    known = letter.object
    facts = {"id": known.id, "uri": known.uri} if known else {"id": letter.origin}
    shown = {
        "id": letter.id,
        "reason": letter.reason.value,
        "message": letter.message,
        "stage": letter.stage,
        "dataset": known.dataset if known else None,
        "object": facts,
        "rows": letter.rows,
        **letter.facts,
        "raw": text_of(letter.raw),
    }
    filters = asked.filters
    if (
        filters.dataset_fits(known.dataset if known else "")
        and filters.object_fits(facts)
        and filters.document_fits(shown)
    ):
        yield about | {"value": shown}


def _block(input: Input, about: Shown, asked: Asked) -> Iterator[Shown]:
    block = Block.of(input.headers)
    filters = asked.filters
    if not filters.dataset_fits(block.object.dataset) or not filters.object_fits(_named(block.object)):
        return
    if asked.whole:
        shown = {
            "object": block.object.uri,
            "dataset": block.object.dataset,
            "block": block.number,
            "row": block.first_row,
            "rows": input.rows,
            "byte_first": block.first_byte,
            "byte_last": block.first_byte + len(input.value),
            "last": block.last,
        }
        if filters.document_fits(shown):
            yield about | {"value": shown}
        return
    dialect = asked.dialect_of(block.object.dataset)
    records = Records.of(input.value, dialect)
    for ordinal in range(records.count):
        shown = {
            "row": block.first_row + ordinal,
            "byte_first": block.first_byte + int(records.starts[ordinal]),
            "byte_last": block.first_byte + int(records.ends[ordinal]),
            "text": text_of(to_utf8(records.raw(ordinal).rstrip(b"\r\n"), dialect.encoding)),
        }
        if filters.document_fits(shown):
            yield about | {"index": ordinal, "row": shown}


def _event(input: Input, about: Shown, asked: Asked) -> Iterator[Shown]:
    event = Event.of(input.value, input.headers)
    filters = asked.filters
    if not filters.dataset_fits(event.object.dataset) or not filters.object_fits(_named(event.object)):
        return
    shown: Shown = {"id": event.id, "source": event.source, "type": event.type, "received": event.received}
    try:
        shown["body"] = orjson.loads(event.body)
    except orjson.JSONDecodeError:
        shown["body"] = text_of(event.body)
    if filters.document_fits(shown):
        yield about | {"value": shown}


def _named(facts: ObjectFacts) -> Shown:
    return {"id": facts.id, "uri": facts.uri}


def _keys(input: Input, about: Shown, asked: Asked) -> Iterator[Shown]:
    if asked.filters.dataset or asked.filters.object:
        return  # keys are all there is
    if asked.whole:
        yield about | {"bytes": len(input.value), "rows": len(input.value) // _KEY_BYTES}
        return
    for start in range(0, len(input.value), _KEY_BYTES):
        shown = {"_key": input.value[start : start + _KEY_BYTES].hex()}
        if asked.filters.document_fits(shown):
            yield about | {"index": start // _KEY_BYTES, "row": shown}


_READERS: Final[Mapping[str, Callable[[Input, Shown, Asked], Iterator[Shown]]]] = {
    "config": _json,
    "objects": _json,
    "blocks": _block,
    "events": _event,
    "typed": _rows,
    "dedupe-changelog": _keys,
    "normalized": _rows,
    "dlq": _letter,
    "ledger": _json,
}
