"""A dataset version meets a header: which column of the file becomes which column of the rows, with type and rules."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from ingestcore.datasets.spec import DatasetSpec, Dialect, FieldSpec
from ingestcore.tabular.header import judge_header, rest_columns, source_columns
from ingestcore.tabular.rules import Rule, rules_of
from ingestcore.tabular.texts import arrow_type


@dataclass(frozen=True)
class Column:
    """One column that is read. `place`: in the file, from 0; `source`: its name there; `name`: in the rows."""

    place: int
    source: str
    name: str
    field: FieldSpec
    rules: tuple[Rule, ...]

    @property
    def type(self) -> pa.DataType:
        return arrow_type(self.field)


@dataclass(frozen=True)
class Plan:
    """How blocks with one header are read for one dataset version.

    titles   names of the file's columns, in order
    columns  those that are read: declared fields in declared order, then the rest in the file's order
    schema   of the rows: declared fields (a missing optional one is null), then the rest
    """

    spec: DatasetSpec
    titles: tuple[str, ...]
    columns: tuple[Column, ...]
    schema: pa.Schema

    @property
    def dialect(self) -> Dialect:
        return self.spec.csv

    @classmethod
    def of(cls, spec: DatasetSpec, header: tuple[str, ...]) -> Plan:
        """Raises ValueError: the header does not fit the dataset, or a rule its type."""
        problem = judge_header(header, spec)
        if problem is not None:
            raise ValueError(problem)
        titles = source_columns(header, spec)
        fields = {name: (field.from_ or name, field) for name, field in spec.named.items()}
        if spec.rest is not None:
            fields |= {title: (title, spec.rest) for title in rest_columns(header, spec)}
        place = {title: at for at, title in enumerate(titles)}
        columns = tuple(
            Column(place[source], source, name, field, rules_of(name, field))
            for name, (source, field) in fields.items()
            if source in place
        )
        if not columns:
            raise ValueError("none of the file's columns is read: declare fields that are in its header")
        schema = pa.schema([(name, arrow_type(field)) for name, (_, field) in fields.items()])
        return cls(spec, titles, columns, schema)
