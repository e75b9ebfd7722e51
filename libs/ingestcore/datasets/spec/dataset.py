"""A dataset: its fields, what its rows are about and what makes two of them the same."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, model_validator

from ingestcore.datasets.spec.dialect import Dialect
from ingestcore.datasets.spec.field import FieldSpec, short_field
from ingestcore.datasets.spec_values import Seconds, Spec


class OnExtra(StrEnum):
    """What to do with columns the spec does not name. `freeze`: the object is SCHEMA_DRIFT."""

    FREEZE = "freeze"
    DISCARD_VALUE = "discard_value"


class DedupeSpec(Spec):
    """What makes two rows the same."""

    keys: tuple[str, ...] | Literal["all"] | None = None
    """Columns, or `all` (the content), that make two rows the same; a list must contain the primary key. Left out:
    `all` with a primary key, else the row's place in its object, so that only reading again is deduplicated; of events,
    with a primary key or without, the event itself"""

    window: Seconds | None = Field(default=None, gt=0)
    """How long a key is remembered after it was published: within it exactly one row of a key is published, after it
    (an eighth of it later at most) one may be again; left out: for ever, of events `7d`"""

    capacity: int = Field(default=10_000_000, gt=0)
    """Keys the Bloom filter is made for; the check behind it is exact"""

    error_rate: float = Field(default=0.01, gt=0, lt=1)
    """Share of new keys that need the exact check"""


class DatasetSpec(Spec):
    """One dataset: fields, keys, rules. Empty: every column of the header, as strings."""

    primary_key: tuple[str, ...] = ()
    """Columns that say which thing a row is about"""

    revision: str | None = None
    """Column that says which version of the thing is newer"""

    dedupe: DedupeSpec = DedupeSpec()
    """What makes two rows the same"""

    fields: dict[str, Annotated[FieldSpec, BeforeValidator(short_field)]] = Field(default_factory=dict)
    """By output name: a type, or a mapping (below); `"*"`: type of the rest. Left out: every column, as a string"""

    on_extra: OnExtra = OnExtra.FREEZE
    """Columns, or members of an event, not named: `freeze`: the object, or the event, is dead-lettered (SCHEMA_DRIFT);
    `discard_value`: they are left out"""

    csv: Dialect = Dialect()
    """How the file is written (below)"""

    description: str = ""
    """For people"""

    @property
    def named(self) -> dict[str, FieldSpec]:
        """Fields with a name of their own, in order."""
        return {name: spec for name, spec in self.fields.items() if name != "*"}

    @property
    def rest(self) -> FieldSpec | None:
        """Type of columns not named: of `"*"`, or string where the dataset declares no fields at all."""
        if "*" in self.fields:
            return self.fields["*"]
        return None if self.fields else FieldSpec()

    def key_columns(self) -> tuple[str, ...] | Literal["all"] | None:
        """What `_key` is made of: columns, `all`, or None for the row's coordinate."""
        if self.dedupe.keys is not None:
            return self.dedupe.keys
        return "all" if self.primary_key else None

    def key_version(self) -> str:
        """-> 8 hex digits that change only with key columns, their types or the canonical form."""
        keys = self.key_columns()
        used = self.named if keys == "all" else {n: self.named.get(n) for n in (*self.primary_key, *(keys or ()))}
        parts: dict[str, Any] = {"keys": keys, "primary_key": self.primary_key, "canonical": 2}
        parts["types"] = {n: (f.key_type, f.trim, f.casefold) if f else "rest" for n, f in sorted(used.items())}
        if keys == "all" and self.rest:
            parts["rest"] = self.rest.key_type
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]

    @model_validator(mode="after")
    def _names_exist(self) -> DatasetSpec:
        keys = self.dedupe.keys
        if isinstance(keys, tuple):
            missing = [name for name in self.primary_key if name not in keys]
            if missing:
                raise ValueError(f"dedupe.keys must contain the primary key: add {', '.join(missing)}")
        if self.fields and self.rest is None:
            wanted = (
                *self.primary_key,
                *(keys if isinstance(keys, tuple) else ()),
                *filter(None, (self.revision,)),
            )
            unknown = [name for name in wanted if name not in self.named]
            if unknown:
                raise ValueError(f"no such field: {', '.join(unknown)}; known: {', '.join(self.named)}")
        for name in self.fields:
            if name != "*" and name.startswith("_"):
                raise ValueError(f"field {name}: names that start with _ are the platform's")
        return self
