"""A group of files -> a dataset: its spec, and for every choice the reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa

from ingestcore.datasets.spec import DatasetSpec, Type
from ingestcore.inference.keys import Key, key_of
from ingestcore.inference.names import field_names
from ingestcore.inference.sample import Group, Look
from ingestcore.inference.types import NULL_WORDS, Verdict, as_string, infer
from ingestcore.tabular.head import LIMIT_BYTES
from ingestcore.tabular.rehearsal import Refusal, rehearse

_MAX_ROUNDS: Final = 4
"""Columns that the csv-parser refuses after all become strings; a few rounds settle the worst of files."""


@dataclass(frozen=True, slots=True)
class Column:
    """name: of the field; title: in the file; missing: of how many files looked at it is missing."""

    name: str
    title: str
    verdict: Verdict
    missing: int = 0

    @property
    def spec(self) -> dict[str, Any]:
        """-> the field as it is written in a configuration."""
        field = self.verdict.field
        given: dict[str, Any] = {} if self.title == self.name else {"from": self.title}
        given["type"] = str(field.type)
        if field.format is not None:
            given["format"] = field.format
        if self.missing:
            given["required"] = False
        return given


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was inferred of one group.

    rows      sampled, over `sampled` files
    refused   what the csv-parser would refuse of the sample all the same
    remarks   about the files as a whole; warnings: what will not work as it is
    """

    name: str
    group: Group
    columns: tuple[Column, ...]
    key: Key
    nulls: tuple[str, ...]
    rows: int
    sampled: int
    refused: tuple[Refusal, ...]
    remarks: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def csv(self) -> dict[str, Any]:
        """-> how the files are written, where that differs from the default."""
        return _csv(self.group, self.nulls)

    @property
    def spec(self) -> DatasetSpec:
        return _spec(self.group, self.columns, self.nulls, self.key)


def infer_dataset(name: str, group: Group) -> Dataset:
    """-> the dataset of a group. The csv-parser's own code reads the whole sample with the spec before it is given."""
    sampled = group.looks
    texts = pa.concat_tables([_texts(found, group) for found in sampled], promote_options="default").combine_chunks()
    named = field_names(group.titles)
    columns = [
        Column(named[title], title, infer(title, _column(texts, title), texts.num_rows), group.missing_from(title))
        for title in group.titles
    ]
    nulls = _null_words(columns, texts)
    columns = [_without(column, nulls) for column in columns]
    for _ in range(_MAX_ROUNDS):
        refused = _refused(sampled, _spec(group, columns, nulls, Key((), "")))
        wrong = {refusal.column for refusal in refused if refusal.column}
        tight = [c for c in columns if c.name in wrong and c.verdict.field.type is not Type.STRING]
        if not tight:
            break
        columns = [_loosened(c) if c in tight else c for c in columns]
    rows = texts.rename_columns([named[title] for title in texts.column_names])
    key = key_of(rows, {column.name: column.verdict.field for column in columns})
    return Dataset(
        name,
        group,
        tuple(columns),
        key,
        nulls,
        texts.num_rows,
        len(sampled),
        tuple(refused),
        tuple(dict.fromkeys(remark for found in group.looks for remark in (*found.shape.remarks, *_guess(found)))),
        tuple(_warnings(group)),
    )


def _texts(found: Look, group: Group) -> pa.Table:
    """-> a file's rows as strings, by title; a column it lacks is left out."""
    spec = DatasetSpec.model_validate({"csv": _csv_of(found), "fields": _all_strings(found)})
    done = rehearse([found.data], spec, max_row_bytes=LIMIT_BYTES, whole=found.whole)
    rows = done.rows()
    if not rows.num_columns:
        return pa.table({title: pa.array([], pa.string()) for title in found.shape.titles})
    return rows.rename_columns(list(found.shape.titles))


def _all_strings(found: Look) -> dict[str, Any]:
    return {f"c{place}": {"from": title, "type": "string"} for place, title in enumerate(found.shape.titles)}


def _csv_of(found: Look) -> dict[str, Any]:
    return found.shape.dialect.model_dump(mode="json", exclude_defaults=True)


def _csv(group: Group, nulls: tuple[str, ...]) -> dict[str, Any]:
    return _csv_of(group.looks[0]) | ({"null_values": ["", *nulls]} if nulls else {})


def _column(texts: pa.Table, title: str) -> pa.Array:
    column = texts.column(title)
    return column.chunk(0) if column.num_chunks == 1 else pa.array([], pa.string())


def _spec(group: Group, columns: Iterable[Column], nulls: tuple[str, ...], key: Key) -> DatasetSpec:
    fields: dict[str, Any] = {column.name: column.spec for column in columns}
    given: dict[str, Any] = {"csv": _csv(group, nulls), "fields": fields}
    if group.looks[0].shape.dialect.header:
        fields["*"] = "string"
    if key.columns:
        given["primary_key"] = key.columns
    else:
        given["dedupe"] = {"keys": "all"}
    if key.revision:
        given["revision"] = key.revision
    return DatasetSpec.model_validate(given)


def _null_words(columns: Iterable[Column], texts: pa.Table) -> tuple[str, ...]:
    """-> words to be read as no value: some column needs them for its type, and no text has them for a value."""
    wanted = {word for column in columns for word in column.verdict.nulls}
    for column in columns:
        if wanted and column.verdict.field.type is Type.STRING and not column.verdict.nulls:
            present = pa.compute.is_in(_column(texts, column.title), value_set=pa.array(sorted(wanted)))
            wanted -= set(pa.compute.unique(_column(texts, column.title).filter(present)).to_pylist())
    return tuple(word for word in NULL_WORDS if word in wanted)


def _without(column: Column, nulls: tuple[str, ...]) -> Column:
    """A type that needs words for null which are texts elsewhere does not hold."""
    verdict = column.verdict
    lacking = sorted(verdict.nulls - set(nulls))
    if not lacking:
        return column
    why = f"{verdict.field.type} but for {', '.join(map(repr, lacking))}, which other columns have as text"
    return replace(column, verdict=as_string(verdict, why))


def _loosened(column: Column) -> Column:
    return replace(column, verdict=as_string(column.verdict, f"not every sampled value is {column.verdict.field.type}"))


def _refused(sampled: Iterable[Look], spec: DatasetSpec) -> list[Refusal]:
    """What the platform would refuse of the sample with that spec."""
    refused: list[Refusal] = []
    for found in sampled:
        refused += rehearse([found.data], spec, max_row_bytes=LIMIT_BYTES, whole=found.whole).refused
    return refused


def _guess(found: Look) -> Iterable[str]:
    if found.encoding.guessed and found.encoding.is_read:
        yield f"not UTF-8, probably {found.encoding.name}: where letters come out wrong, correct `encoding`"


def _warnings(group: Group) -> Iterable[str]:
    encodings = {found.encoding.name: found.encoding for found in group.looks if not found.encoding.is_read}
    for name, encoding in encodings.items():
        count = sum(found.encoding.name == name for found in group.looks)
        probably = "probably " if encoding.guessed else ""
        yield (
            f"{count} of {len(group.looks)} files looked at {'is' if count == 1 else 'are'} {probably}{name}, "
            f"which is not read: convert first, e.g. `iconv -f {name} -t UTF-8`"
        )
