"""Rules that a spec's types can't say: within one field, one dataset, and between sources and sinks."""

from __future__ import annotations

import datetime
import itertools
import re
import zoneinfo
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from ingestcore.datasets.decimal_digits import decimal_text, exact_decimal
from ingestcore.datasets.event_paths import ATTRIBUTES, path_of
from ingestcore.datasets.problems import Finding, Level
from ingestcore.datasets.spec import PLACES, DatasetSpec, FieldSpec, OnExtra, ParquetSink, SinkSpec, SourceSpec, Type

RESERVED_DATASETS = ("dlq",)
"""Folders beside the datasets' in a lake."""

_NUMBERS = (Type.INTEGER, Type.FLOAT, Type.DECIMAL)
_TIMES = (Type.DATE, Type.TIMESTAMP)


def dataset_findings(name: str, spec: DatasetSpec, written: Iterable[str]) -> Iterator[Finding]:
    """What is wrong or doubtful in one dataset. `written`: keys the operator wrote, in snake_case."""
    at = ("datasets", name)
    if name in RESERVED_DATASETS:
        yield Finding(at, f"`{name}` is the folder of dead letters in a lake", f"another name, e.g. {name}-data")
    for field, column in spec.fields.items():
        for message, instead in _field_faults(column):
            yield Finding((*at, "fields", field), message, instead)
    yield from _renames(name, spec)
    yield from _keys_and_revision(name, spec)
    if spec.fields and spec.rest is None and spec.on_extra is OnExtra.FREEZE and "on_extra" not in written:
        yield Finding(
            (*at, "fields"),
            "a file with any other column is dead-lettered whole (SCHEMA_DRIFT)",
            '"*": string to take further columns, or on_extra: freeze to say that this is meant',
            Level.WARNING,
        )


def _keys_and_revision(name: str, spec: DatasetSpec) -> Iterator[Finding]:
    at = ("datasets", name)
    if spec.revision in spec.named and spec.named[spec.revision].type is Type.JSON:
        yield Finding((*at, "revision"), "JSON has no order: no revision is newer", "a number, text, date or timestamp")
    for label, columns in (("primary_key", spec.primary_key), ("dedupe", spec.dedupe.keys or ())):
        if isinstance(columns, tuple) and len(set(columns)) < len(columns):
            yield Finding((*at, label), "names a column twice", "each column once")
    if isinstance(spec.dedupe.keys, tuple) and not spec.dedupe.keys:
        yield Finding((*at, "dedupe", "keys"), "an empty list makes all rows the same row", "all, or leave `keys` out")
    if not spec.csv.header and not spec.named:
        yield Finding((*at, "csv"), "files without a header need the columns named", "fields: in the files' order")


def _renames(name: str, spec: DatasetSpec) -> Iterator[Finding]:
    taken: dict[str, str] = {}
    for field, column in spec.named.items():
        origin = column.from_ or field
        if origin in taken:
            yield Finding(
                ("datasets", name, "fields", field),
                f"column {origin!r} is already read by field {taken[origin]}",
                "one field for a column",
            )
        taken.setdefault(origin, field)
    if "*" in spec.fields and spec.fields["*"].from_:
        yield Finding(("datasets", name, "fields", "*"), '"*" stands for many columns: `from` can\'t name one', "")


def _field_faults(column: FieldSpec) -> Iterator[tuple[str, str]]:
    """-> (message, instead) of one field."""
    for label, set_, fits in (
        ("min/max", (column.min, column.max) != (None, None), (*_NUMBERS, *_TIMES)),
        ("length rules", (column.length, column.min_length, column.max_length) != (None,) * 3, (Type.STRING,)),
        ("regex", column.regex is not None, (Type.STRING,)),
        ("format", column.format is not None, _TIMES),
        ("timezone", column.timezone is not None, (Type.TIMESTAMP,)),
        ("true/false words", (column.true, column.false) != (None, None), (Type.BOOLEAN,)),
        ("trim/casefold", column.trim or column.casefold, (Type.STRING,)),
        ("enum", column.enum is not None, tuple(kind for kind in Type if kind is not Type.JSON)),
    ):
        if set_ and column.type not in fits:
            yield f"{label} can't be used with type {column.type}", f"type: {' or '.join(fits)}"
    yield from _bound_faults(column)
    if column.regex is not None and (fault := _regex_fault(column.regex)):
        yield f"regex: {fault}", "RE2 syntax: no look-ahead, no back-references"
    if column.timezone is not None and not _is_zone(column.timezone):
        yield f"unknown timezone {column.timezone!r}", "a name such as Europe/Berlin or UTC"
    if column.enum is not None and not column.enum:
        yield "an empty enum allows no value at all", "the allowed values, or leave it out"
    if column.true and column.false and set(column.true) & set(column.false):
        yield "a word can't mean both true and false", "each word in one of the two lists"


def _bound_faults(column: FieldSpec) -> Iterator[tuple[str, str]]:
    bounds: dict[str, float | Fraction] = {}
    for label, value in (("min", column.min), ("max", column.max)):
        if value is None or column.type not in (*_NUMBERS, *_TIMES):
            continue
        try:
            bounds[label] = _bound(column, value)
        except ValueError as error:
            if column.type is Type.DECIMAL:
                yield f"{label}: {error}", f"a bound that is a {column.written_type} itself"
                continue
            example = "2024-01-31" if column.type in _TIMES else "0"
            yield f"{label}: {value!r} is no {column.type}", f"{label}: {example}"
    if len(bounds) == 2 and bounds["min"] > bounds["max"]:
        yield f"min {column.min} is more than max {column.max}: every row would be refused", "min below max"
    if column.min_length is not None and column.max_length is not None and column.min_length > column.max_length:
        yield f"min_length {column.min_length} is more than max_length {column.max_length}", "min_length below"


def _bound(column: FieldSpec, value: float | int | str) -> float | Fraction:
    if column.type is Type.DECIMAL:
        return exact_decimal(decimal_text(value), *column.digits)
    if column.type in _TIMES:
        moment = datetime.datetime.fromisoformat(str(value))
        return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()
    return float(value)


def _regex_fault(pattern: str) -> str:
    """-> why RE2 refuses it, or ""."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        return re.sub(r"^Invalid regular expression: ", "", str(error))
    return ""


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def sink_findings(name: str, spec: SinkSpec) -> Iterator[Finding]:
    """What is wrong in one sink."""
    at = ("sinks", name)
    given = [place for place in PLACES if getattr(spec, place) is not None]
    if len(given) != 1:
        what = f"writes to {' and '.join(given)} at once" if given else "says nowhere to write to"
        yield Finding(at, f"the sink {what}", "one of parquet: {uri: s3://bucket/prefix/}, postgres: {dsn: ...}")
    if spec.postgres is None:
        return
    if spec.from_ == "dlq":
        yield Finding((*at, "from"), "a postgres sink takes rows, not dead letters", "`parquet` for a sink of these")
    if spec.postgres.table is not None and len(spec.datasets or ()) != 1:
        yield Finding((*at, "postgres", "table"), "names the table of one dataset", "datasets: [name] beside it")


def route_findings(sources: Mapping[str, SourceSpec]) -> Iterator[Finding]:
    """Patterns that can never match, because one before them takes everything."""
    for name, source in sources.items():
        patterns = list(source.route or ())
        if "*" in patterns[:-1]:
            later = patterns[patterns.index("*") + 1]
            yield Finding(
                ("sources", name, "route", later),
                '`"*"` above takes every key, the first match wins: this pattern is never reached',
                'the pattern above `"*"`',
                Level.WARNING,
            )
        for wanted in targets(name, source) & set(RESERVED_DATASETS):
            yield Finding(
                ("sources", name), f"`{wanted}` is the folder of dead letters in a lake", "another dataset name"
            )
        if source.route is not None and source.dataset is not None:
            yield Finding(
                ("sources", name, "dataset"), "`route` decides; `dataset` is not used", "one of the two", Level.WARNING
            )
        if source.route is not None and not patterns:
            yield Finding(("sources", name, "route"), "an empty route matches no key at all", '"*": a dataset')


def path_findings(sources: Mapping[str, SourceSpec], datasets: Mapping[str, DatasetSpec]) -> Iterator[Finding]:
    """Fields whose `from` fits no source that feeds their dataset: paths lead into events, files have columns."""
    for source_name, source in sources.items():
        for name in sorted(targets(source_name, source) & set(datasets)):
            for field, column in datasets[name].named.items():
                at = ("datasets", name, "fields", field)
                if source.http is not None:
                    try:
                        path_of(field, column.from_)
                    except ValueError as error:
                        yield Finding(at, f"{error}; events of {source_name} are to be read so", "a path, or no `from`")
                elif column.from_ == "$" or column.from_ in ATTRIBUTES:
                    yield Finding(
                        at,
                        f"from: {column.from_} is of events, and {source_name} brings files",
                        "the title of a column, or a dataset of its own for the events",
                        Level.WARNING,
                    )


def revision_findings(sources: Mapping[str, SourceSpec], datasets: Mapping[str, DatasetSpec]) -> Iterator[Finding]:
    """Datasets whose content is their key, and that do not say which of two contents is newer."""
    for name, spec in datasets.items():
        feeding = [source for given, source in sources.items() if name in targets(given, source)]
        by_event = spec.dedupe.keys is None and feeding and all(source.http is not None for source in feeding)
        if spec.primary_key and spec.revision is None and spec.key_columns() == "all" and not by_event:
            yield Finding(
                ("datasets", name, "primary_key"),
                "without `revision` a value that returns to an earlier one counts as a repeat and is dropped",
                "revision: the column that says which version is newer, if there is one",
                Level.WARNING,
            )


def targets(name: str, source: SourceSpec) -> set[str]:
    """-> datasets a source feeds."""
    return set(source.route.values()) if source.route is not None else {source.dataset or name}


def unused_findings(
    sources: Mapping[str, SourceSpec], datasets: Iterable[str], sinks: Mapping[str, SinkSpec]
) -> Iterator[Finding]:
    """Datasets that nothing feeds and sinks that wait for datasets nobody fills; only for files with sources."""
    fed = set().union(*(targets(name, source) for name, source in sources.items()))
    for name in datasets:
        if sources and name not in fed:
            yield Finding(
                ("datasets", name),
                "no source in these files leads here",
                f'route: {{"pattern*.csv": {name}}}',
                Level.WARNING,
            )
    for name, sink in sinks.items():
        for wanted in sink.datasets or ():
            if sources and wanted not in fed:
                yield Finding(
                    ("sinks", name, "datasets"), f"no source in these files fills `{wanted}`", "", Level.WARNING
                )


@dataclass(frozen=True, slots=True)
class _Location:
    """Where a lake lies. Same bucket name at another endpoint is another bucket."""

    endpoint: str
    bucket: str
    prefix: str


def _location(lake: ParquetSink) -> _Location:
    bucket, _, prefix = lake.uri.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    return _Location(lake.endpoint_url or "", bucket, f"{prefix}/" if prefix else "")


def conflict_findings(sources: Mapping[str, SourceSpec], sinks: Mapping[str, SinkSpec]) -> Iterator[Finding]:
    """Sinks that write where a source reads, and sinks that write over each other."""
    yield from _shared_tables(sinks)
    owners: dict[tuple[_Location, str], str] = {}
    for name, sink in sinks.items():
        if sink.parquet is None:
            continue
        lake = _location(sink.parquet)
        for source_name, source in sources.items():
            s3 = source.s3
            if s3 is None:
                continue
            same_bucket = (s3.endpoint_url or "", s3.bucket) == (lake.endpoint, lake.bucket)
            if same_bucket and (lake.prefix.startswith(s3.prefix) or s3.prefix.startswith(lake.prefix)):
                yield Finding(
                    ("sinks", name, "parquet", "uri"),
                    f"overlaps source {source_name} (s3://{s3.bucket}/{s3.prefix}): it would read what the sink writes",
                    f"another bucket, or a prefix beside the source's, e.g. s3://{lake.bucket}/lake-{name}/",
                )
        owner = owners.setdefault((lake, sink.from_), name)
        if owner != name:
            yield Finding(
                ("sinks", name, "parquet", "uri"),
                f"sink {owner} writes {sink.from_} rows to the same place",
                f"a prefix of its own, e.g. {sink.parquet.uri.rstrip('/')}/{name}/",
            )


def _shared_tables(sinks: Mapping[str, SinkSpec]) -> Iterator[Finding]:
    """Two sinks would take each other's rows for their own."""
    databases = {name: sink for name, sink in sinks.items() if sink.postgres is not None}
    for (one, first), (other, second) in itertools.combinations(databases.items(), 2):
        places = [(sink.database.dsn, sink.database.schema_) for sink in (first, second)]
        tables = _tables(first), _tables(second)
        shared = tables[0] & tables[1] if tables[0] is not None and tables[1] is not None else {"*"}
        if places[0] == places[1] and shared:
            which = "the same tables" if "*" in shared else f"the same table {', '.join(sorted(shared))}"
            yield Finding(("sinks", other, "postgres"), f"sink {one} writes {which}", "another `schema` or `datasets`")


def _tables(sink: SinkSpec) -> set[str] | None:
    """-> names of the tables; None: one for every dataset there is."""
    if sink.database.table is not None:
        return {sink.database.table}
    return None if sink.datasets is None else set(sink.datasets)
