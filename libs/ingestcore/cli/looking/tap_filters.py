"""What `ingest tap` and `ingest trace` let through: conditions on headers, on columns of Arrow rows, on JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ingestcore.cli.choices import names_dataset, names_object
from ingestcore.cli.errors import EXIT_CONFIGURATION, OperatorError
from ingestcore.messages.rows import OBJECT

Pair = tuple[str, str]


def pairs(texts: Iterable[str] | None, option: str) -> tuple[Pair, ...]:
    """`name=value` texts -> pairs. Raises OperatorError."""
    found = []
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise OperatorError(f"{option} {text!r}: write {option} name=value", EXIT_CONFIGURATION)
        found.append((name, value))
    return tuple(found)


@dataclass
class Filters:
    """All of them must hold. A value is compared in the column's own type; an empty one means null or empty.

    where    column and value; `a.b` is the field b of a
    headers  header and its text
    dataset  `name` or `name@version`; object: see `names_object`
    seen     names of the columns that were met: tells a mistyped one from one that nothing matches
    """

    where: Sequence[Pair] = ()
    headers: Sequence[Pair] = ()
    dataset: str = ""
    object: str = ""
    seen: set[str] = field(default_factory=set)

    def unknown(self) -> list[str]:
        """-> columns of `where` that nothing met had."""
        return [name for name, _ in self.where if self.seen and name.partition(".")[0] not in self.seen]

    def header_fits(self, headers: Mapping[str, str]) -> bool:
        return all(headers.get(name) == text for name, text in self.headers)

    def dataset_fits(self, dataset: str) -> bool:
        return not self.dataset or names_dataset(self.dataset, dataset)

    def object_fits(self, facts: Mapping[str, Any]) -> bool:
        """`facts`: with `id` and `uri`, or bucket and key."""
        uri = facts.get("uri") or f"s3://{facts.get('bucket', '')}/{facts.get('key', '')}"
        return not self.object or names_object(self.object, str(facts.get("id", "")), uri)

    def document_fits(self, document: Mapping[str, Any]) -> bool:
        """A JSON value; lists are looked through."""
        self.seen.update(document)
        return all(any(_text(v) == text for v in _at(document, name.split("."))) for name, text in self.where)

    def rows(self, batch: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.int64]]:
        """-> places of the rows that fit, ascending."""
        self.seen.update(batch.schema.names)
        fits = np.ones(batch.num_rows, np.bool_)
        for name, text in self.where:
            fits &= _fits(batch, name, text)
        if self.object and OBJECT in batch.schema.names:
            facts = [orjson.loads(known) for known in batch.column(OBJECT).dictionary.to_pylist()]
            meant = np.array([self.object_fits(known) for known in facts], np.bool_)
            fits &= meant[batch.column(OBJECT).indices.to_numpy()]
        return np.flatnonzero(fits)


def _fits(batch: pa.RecordBatch, name: str, text: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    column = _column(batch, name)
    if column is None:
        return np.zeros(batch.num_rows, np.bool_)
    if text == "":
        empty = column.is_null()
        if pa.types.is_string(column.type):
            empty = pc.or_(empty, pc.fill_null(pc.equal(column, ""), False))
        return np.asarray(empty)
    wanted = scalar(text, column.type)
    if wanted is None:
        return np.zeros(batch.num_rows, np.bool_)
    return np.asarray(pc.fill_null(pc.equal(column, wanted), False))


def _column(batch: pa.RecordBatch, path: str) -> pa.Array | None:
    name, _, below = path.partition(".")
    if path in batch.schema.names:
        name, below = path, ""
    if batch.schema.names.count(name) != 1:
        return None
    column = batch.column(name)
    if pa.types.is_dictionary(column.type):
        entries = column.dictionary
        if name == OBJECT and below:
            facts = (orjson.loads(known) for known in entries.to_pylist())
            entries, below = pa.array([_text(next(_at(known, below.split(".")), None)) for known in facts]), ""
        column = entries.take(column.indices)
    for part in below.split(".") if below else ():
        if not pa.types.is_struct(column.type) or column.type.get_field_index(part) < 0:
            return None
        column = pc.struct_field(column, part)
    return column


def scalar(text: str, type: pa.DataType) -> pa.Scalar | None:
    """-> the value in a column's type; bytes are written in hex, times without a zone are UTC. None: it is none."""
    if pa.types.is_fixed_size_binary(type) or pa.types.is_binary(type):
        try:
            return pa.scalar(bytes.fromhex(text), type)
        except (ValueError, pa.ArrowInvalid):
            return None
    for written in (text, f"{text}Z"):
        try:
            return pa.scalar(written).cast(type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    return None


def _at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """-> what stands at a path, in every element of the lists on the way."""
    if isinstance(value, list):
        for item in value:
            yield from _at(item, path)
    elif not path:
        yield value
    elif isinstance(value, Mapping):
        whole = ".".join(path)
        if whole in value:
            yield from _at(value[whole], ())
        elif path[0] in value:
            yield from _at(value[path[0]], path[1:])


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
