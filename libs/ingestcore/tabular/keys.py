"""`_entity` and `_key`: 16 bytes a row, computed once, by one function for CSV and for events.

`_key` is the first 16 bytes of SHA-256 over one canonical message a row. `_entity`, which picks the partition, is the
same over the primary key's columns; where these are the key's columns too, or where there is no primary key, it is the
`_key`. The message:

    scope     16 bytes: SHA-256, cut, over the length-prefixed (4 bytes, big-endian) UTF-8 texts tenant, dataset
              (without version), key version of the spec, "columns" and, in key order, name and type of every column
              (of a decimal with its scale: `decimal:2`); for a coordinate "coordinate", bucket and key of the object
              and its ETag; for an event "event" instead of the key version, and the source's name
    nulls     a bitmap, first column in the highest bit, padded to whole bytes; 1 = null
    numbers   big-endian for each column of a fixed width, in key order, 0 where null; 8 bytes, or 16 of a decimal:
              integer: two's complement; float: IEEE 754 bits (-0.0 is 0.0); boolean: 0 or 1;
              date: days since 1970-01-01; timestamp: microseconds since then, UTC; decimal: two's complement of
              the value without its point (1.50 of two places is 150)
    lengths   4 bytes big-endian for each string or JSON column: bytes of its text, 0 where null
    texts     the strings, UTF-8, one after the other; of JSON the canonical form (see `json_texts`)

Typed values, so CSV `1.0` and JSON `1` of a float column are one key; binary, so no formatter's taste gets into keys;
every part's length is known from what precedes it, so no two rows have one message by accident; null and the empty
string differ in the bitmap.

Key columns: the listed ones in the listed order. Content (`all`): the declared fields and the columns of `"*"` that
are present, sorted by name; a declared column missing from the file is null. Without keys: the row's coordinate, whose
number is a fixed-width part; it has no nulls.

Rows of events whose dataset lists no keys go by their event: what names it (`Event.identity`) is the one text. Their
`_entity` is the primary key's all the same, where there is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingestcore.datasets.spec import DatasetSpec, FieldSpec, Type
from ingestcore.digests.choice import row_digests
from ingestcore.digests.message import DIGEST_BYTES, SCOPE_BYTES, Message
from ingestcore.messages.objects import ObjectFacts
from ingestcore.messages.rows import HASH_TYPE
from ingestcore.tabular.json_texts import canonical_json
from ingestcore.tabular.texts import arrow_type

KEY_BYTES: Final = DIGEST_BYTES
_TEXTS: Final = (Type.STRING, Type.JSON)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose rows they are. `dataset`: without version; `coordinate`: what else names a row that has no key, before
    its number: bucket and key of its object, and the ETag; `source`: what else names an event."""

    tenant: str
    dataset: str
    coordinate: tuple[str, ...] = ()
    source: str = ""

    @classmethod
    def of(cls, facts: ObjectFacts) -> Owner:
        return cls(facts.tenant, facts.table, (facts.uri, facts.etag))

    @classmethod
    def of_events(cls, facts: ObjectFacts) -> Owner:
        return cls(facts.tenant, facts.table, source=facts.source)


@dataclass(frozen=True, slots=True)
class Keys:
    """`_entity` and `_key`: arrays of 16 bytes, one a row. Without a primary key they are one array."""

    entity: pa.Array
    key: pa.Array


def event_keys(rows: pa.Table, spec: DatasetSpec, owners: Sequence[tuple[Owner, int]], identities: pa.Array) -> Keys:
    """-> keys of rows of events, of one dataset version. identities: `Event.identity` of each row; else as `keys`."""
    if spec.dedupe.keys is not None:
        return keys(rows, spec, owners, identities)
    own = {owner: _scope(owner.tenant, owner.dataset, "event", owner.source) for owner, _ in owners}
    key = _digests(Message(len(identities), _by_owner(own, owners), (None,), (), (identities,)))
    return _with_entity(rows, spec, owners, key)


def keys(rows: pa.Table, spec: DatasetSpec, owners: Sequence[tuple[Owner, int]], numbers: pa.Array) -> Keys:
    """-> keys of rows of one dataset version.

    rows     typed columns by output name, one chunk each; the platform's columns are ignored
    owners   in the order of the rows: whose, and how many
    numbers  int64: the rows' numbers in their objects, used where the key is the coordinate
    Raises KeyError: a key column is missing.
    """
    wanted = spec.key_columns()
    if wanted is None:
        scopes = _scopes(spec, owners, [], coordinate=True)
        key = _digests(Message(len(numbers), scopes, (), (_integer_words(numbers),), ()))
    else:
        names = content_columns(rows.schema.names, spec) if wanted == "all" else wanted
        key = _digests(_message(rows, spec, names, owners))
        if spec.primary_key == names:
            return Keys(key, key)
    return _with_entity(rows, spec, owners, key)


def _with_entity(rows: pa.Table, spec: DatasetSpec, owners: Sequence[tuple[Owner, int]], key: pa.Array) -> Keys:
    if not spec.primary_key:
        return Keys(key, key)
    return Keys(_digests(_message(rows, spec, spec.primary_key, owners)), key)


def content_columns(present: Sequence[str], spec: DatasetSpec) -> tuple[str, ...]:
    """-> names of the columns that are a row's content, sorted."""
    rest = [name for name in present if not name.startswith("_")] if spec.rest is not None else []
    return tuple(sorted({*spec.named, *rest}))


def _message(rows: pa.Table, spec: DatasetSpec, names: Sequence[str], owners: Sequence[tuple[Owner, int]]) -> Message:
    """-> the message over columns of the table."""
    nulls: list[NDArray[np.bool_] | None] = []
    words: list[NDArray[np.uint64]] = []
    texts: list[pa.Array] = []
    described: list[str] = []
    named, present = spec.named, set(rows.schema.names)
    for name in names:
        field = named.get(name) or spec.rest
        if field is None or (name not in named and name not in present):
            raise KeyError(f"key column {name} is not among the rows' columns")
        described += (name, field.key_type)
        column = _column(rows, name) if name in present else _nothing(rows.num_rows, field)
        nulls.append(_null_mask(column))
        if field.type in _TEXTS:
            texts.append(_filled(normalised(column, field), ""))
        else:
            words += _words(column)
    return Message(rows.num_rows, _scopes(spec, owners, described, coordinate=False), nulls, words, texts)


def _nothing(count: int, field: FieldSpec) -> pa.Array:
    return pa.nulls(count, arrow_type(field))


def _column(rows: pa.Table, name: str) -> pa.Array:
    column = rows.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _scopes(
    spec: DatasetSpec, owners: Sequence[tuple[Owner, int]], described: Sequence[str], *, coordinate: bool
) -> NDArray[np.uint8]:
    """-> 16 bytes for each row, or for all where there is one owner."""
    version = spec.key_version()
    made: dict[Owner, bytes] = {}
    for owner, _ in owners:
        if owner not in made:
            own = ("coordinate", *owner.coordinate) if coordinate else ("columns", *described)
            made[owner] = _scope(owner.tenant, owner.dataset, version, *own)
    return _by_owner(made, owners)


def _by_owner(made: Mapping[Owner, bytes], owners: Sequence[tuple[Owner, int]]) -> NDArray[np.uint8]:
    scopes = np.frombuffer(b"".join(made[owner] for owner, _ in owners), np.uint8).reshape(-1, SCOPE_BYTES)
    return scopes[:1] if len(made) == 1 else np.repeat(scopes, [count for _, count in owners], axis=0)


def _scope(*parts: str) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        digest.update(len(data).to_bytes(4, "big") + data)
    return digest.digest()[:SCOPE_BYTES]


def normalised(column: pa.Array, field: FieldSpec) -> pa.Array:
    """-> texts as keys see them: JSON in canonical form, strings trimmed (Unicode white space) and case-folded where
    the field says so."""
    if field.type is Type.JSON:
        return canonical_json(column)
    if field.trim:
        column = pc.utf8_trim_whitespace(column)
    if field.casefold:
        # Arrow lowers, which is not folding (ß, final sigma): each distinct text once.
        coded = column.dictionary_encode()
        folded = pa.array([text.casefold() for text in coded.dictionary.to_pylist()], pa.string())
        column = pa.DictionaryArray.from_arrays(coded.indices, folded).dictionary_decode()
    return column


def _null_mask(column: pa.Array) -> NDArray[np.bool_] | None:
    if not column.null_count:
        return None
    mask: NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return mask


def _words(column: pa.Array) -> list[NDArray[np.uint64]]:
    """-> fixed-width values as 64-bit words, 0 where null; the two of a decimal, the higher one first."""
    if pa.types.is_decimal128(column.type):
        halves = np.frombuffer(_filled(column, 0).buffers()[1], np.uint64, 2 * len(column), 16 * column.offset)
        return [halves[1::2], halves[::2]]
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8()).cast(pa.int64())
    elif pa.types.is_date32(column.type):
        column = column.view(pa.int32()).cast(pa.int64())
    if pa.types.is_floating(column.type):
        numbers = _filled(column, 0.0).to_numpy(zero_copy_only=False) + 0.0  # -0.0 + 0.0 is 0.0
        return [numbers.view(np.uint64)]
    return [_integer_words(column.view(pa.int64()))]


def _integer_words(column: pa.Array) -> NDArray[np.uint64]:
    words: NDArray[np.uint64] = _filled(column, 0).to_numpy(zero_copy_only=False).view(np.uint64)
    return words


def _filled(column: pa.Array, value: float | str) -> pa.Array:
    return pc.fill_null(column, value) if column.null_count else column


def _digests(message: Message) -> pa.Array:
    values = row_digests()(message)
    return pa.FixedSizeBinaryArray.from_buffers(HASH_TYPE, len(values), [None, pa.py_buffer(values)])
