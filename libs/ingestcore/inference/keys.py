"""What may identify a row: columns that are named like an identifier and unique over the sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import polars as pl
import pyarrow as pa

from ingestcore.datasets.spec import FieldSpec, Type
from ingestcore.inference.words import is_identifier, is_revision

_MAX_CANDIDATES: Final = 6
_MAX_CHARACTERS: Final = 128
_MIN_ROWS: Final = 10
"""In fewer rows nearly anything is unique."""

_KEY_TYPES: Final = (Type.STRING, Type.INTEGER)
_REVISION_TYPES: Final = (Type.INTEGER, Type.DATE, Type.TIMESTAMP)


@dataclass(frozen=True, slots=True)
class Key:
    """columns: empty where none is sure; then rows are told apart by all they say. why: for the configuration."""

    columns: tuple[str, ...]
    why: str
    revision: str | None = None


def key_of(rows: pa.Table, fields: Mapping[str, FieldSpec]) -> Key:
    """-> the primary key of sampled rows. `rows`: columns of strings by field name."""
    candidates = [name for name, field in fields.items() if field.type in _KEY_TYPES and is_identifier(name)]
    candidates = [name for name in candidates if _always_there(rows, name)][:_MAX_CANDIDATES]
    if not candidates:
        return Key((), "no column is named like an id and always filled")
    distinct = pl.DataFrame(pl.from_arrow(rows)).unique()
    if distinct.height < _MIN_ROWS:
        return Key((), f"{distinct.height} rows are too few to tell whether {candidates[0]} identifies one")
    for count in (1, 2):
        for columns in combinations(candidates, count):
            if distinct.select(columns).n_unique() == distinct.height:
                repeated = rows.num_rows - distinct.height
                aside = f", {repeated:,} whole rows that come again aside" if repeated else ""
                why = f"unique over {rows.num_rows:,} sampled rows{aside}"
                return Key(columns, why, _revision(rows, fields, columns))
    return Key((), f"{_listed(candidates)} {'is' if len(candidates) == 1 else 'are'} not unique over the sample")


def _always_there(rows: pa.Table, name: str) -> bool:
    texts = pl.Series(name, pl.from_arrow(rows.column(name)))
    if texts.null_count():
        return False
    lengths = texts.str.len_chars()
    least, most = lengths.min(), lengths.max()
    return isinstance(least, int) and isinstance(most, int) and least > 0 and most <= _MAX_CHARACTERS


def _revision(rows: pa.Table, fields: Mapping[str, FieldSpec], key: Sequence[str]) -> str | None:
    for name, field in fields.items():
        if name not in key and field.type in _REVISION_TYPES and is_revision(name) and _always_there(rows, name):
            return name
    return None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
