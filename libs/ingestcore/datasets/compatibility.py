"""What a change of a dataset's spec does to rows, to the lake and to files that are still to come. Pure.

A change is compatible if no row that was published comes again as a new one, every column of the lake keeps its type
and stays filled, and every file and value that is taken today is taken afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from ingestcore.datasets import checks
from ingestcore.datasets.config_file import Config
from ingestcore.datasets.publish import datasets_of, rekeyed, sinks_of
from ingestcore.datasets.spec import DatasetSpec, FieldSpec, OnExtra, ParquetSink, Type

_INTEGER_DIGITS: Final = 19
"""Of the largest integer."""


class Effect(StrEnum):
    """KEYS: rows already published come again as new ones; LAKE: what readers of the lake see; DEAD_LETTERS: what
    passes today would be refused; NOTE: nothing of these."""

    KEYS = "keys"
    LAKE = "lake"
    DEAD_LETTERS = "dead letters"
    NOTE = "note"


class Kind(StrEnum):
    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True)
class Consequence:
    """One thing a change brings about. breaks: it is why the change is not compatible; path: within the dataset."""

    effect: Effect
    path: str
    message: str
    breaks: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one dataset."""

    dataset: str
    kind: Kind
    consequences: tuple[Consequence, ...] = ()

    @property
    def compatible(self) -> bool:
        return not any(found.breaks for found in self.consequences)

    def as_dict(self) -> dict[str, Any]:
        told = [
            {"effect": c.effect.value, "path": c.path, "message": c.message, "breaks": c.breaks}
            for c in self.consequences
        ]
        return {"dataset": self.dataset, "change": self.kind.value, "compatible": self.compatible, "consequences": told}


def compare(old: Config, new: Config) -> list[Verdict]:
    """-> one verdict per dataset of either side, the implied ones too, by name."""
    before, after = datasets_of(old), datasets_of(new)
    verdicts = []
    for name in sorted({*before, *after}):
        if name not in after:
            note = Consequence(Effect.NOTE, "", "not in the new files: it stays in force, `--prune` removes it", False)
            verdicts.append(Verdict(name, Kind.LEFT_OUT, (note,)))
        elif name not in before:
            verdicts.append(Verdict(name, Kind.ADDED))
        else:
            found = [*consequences(before[name], after[name]), *_around(name, old, new)]
            same = before[name].canonical() == after[name].canonical() and not found
            verdicts.append(Verdict(name, Kind.UNCHANGED if same else Kind.CHANGED, tuple(found)))
    return verdicts


def consequences(old: DatasetSpec, new: DatasetSpec) -> Iterator[Consequence]:
    """-> of one spec becoming another."""
    yield from _keys(old, new)
    for name in dict.fromkeys((*old.named, *new.named)):
        yield from _field(name, old, new)
    yield from _rest(old, new)
    yield from _reading(old, new)


# -- keys
def _keys(old: DatasetSpec, new: DatasetSpec) -> Iterator[Consequence]:
    if rekeyed(old, new):
        yield Consequence(
            Effect.KEYS,
            "dedupe.keys",
            f"{_why_rekeyed(old, new)}: every row that is read again is new, in the lake beside its older copy; "
            "`ingest apply` wants --rekey",
        )
    old_window, new_window = old.dedupe.window, new.dedupe.window
    if new_window is not None and (old_window is None or new_window < old_window):
        message = f"a row that comes again after more than {new_window:g} s is new"
        yield Consequence(Effect.KEYS, "dedupe.window", message)
    if old.revision != new.revision:
        message = f"which version of a row is newer is told by {new.revision or 'nothing'} instead of {old.revision}"
        yield Consequence(Effect.NOTE, "revision", message, breaks=False)


def _why_rekeyed(old: DatasetSpec, new: DatasetSpec) -> str:
    def said(spec: DatasetSpec) -> str:
        keys = spec.key_columns()
        return "the row's place" if keys is None else "the whole content" if keys == "all" else ", ".join(keys)

    if said(old) != said(new):
        return f"rows are the same by {said(new)} instead of {said(old)}"
    if old.primary_key != new.primary_key:
        return (
            f"primary_key is {', '.join(new.primary_key) or 'none'} instead of {', '.join(old.primary_key) or 'none'}"
        )
    return f"{said(new)}: columns or types of it differ"


# -- columns
def _field(name: str, old: DatasetSpec, new: DatasetSpec) -> Iterator[Consequence]:
    path = f"fields.{name}"
    was, is_ = old.named.get(name) or old.rest, new.named.get(name) or new.rest
    if was is None and is_ is not None:
        yield Consequence(Effect.LAKE, path, f"a new column, {is_.written_type}: null in older files", breaks=False)
    elif is_ is None and was is not None:
        yield Consequence(Effect.LAKE, path, "the column ends: null in new files, older ones keep it")
        if new.on_extra is OnExtra.FREEZE:
            message = f"a file that still has the column {was.from_ or name!r} is SCHEMA_DRIFT, the whole object"
            yield Consequence(Effect.DEAD_LETTERS, path, message)
    if was is not None and is_ is not None:
        yield from _same_column(path, was, is_)
    yield from _presence(name, old, new)


def _same_column(path: str, was: FieldSpec, is_: FieldSpec) -> Iterator[Consequence]:
    if was.written_type != is_.written_type:
        yield from _other_type(path, was, is_)
    else:
        yield from _stricter(path, was, is_)


def _other_type(path: str, was: FieldSpec, is_: FieldSpec) -> Iterator[Consequence]:
    change = f"{was.written_type} becomes {is_.written_type}"
    if {was.type, is_.type} == {Type.STRING, Type.JSON}:
        yield Consequence(Effect.LAKE, path, f"{change}: text in the lake as before", breaks=False)
    else:
        yield Consequence(
            Effect.LAKE,
            path,
            f"{change}: older files keep the old type; Athena and Trino can't read both in one column, DuckDB widens",
        )
    if not _takes_all(was, is_):
        message = f"{change}: a value that is no {is_.written_type} is VALIDATION_FAIL, row by row"
        yield Consequence(Effect.DEAD_LETTERS, path, message)
    yield from _stricter(path, was, is_)


def _takes_all(was: FieldSpec, is_: FieldSpec) -> bool:
    """Whether every text of the old type is one of the new."""
    if is_.type is Type.STRING:
        return True
    if is_.type is Type.DECIMAL and was.type is Type.DECIMAL:
        (digits, scale), (more, finer) = was.digits, is_.digits
        return finer >= scale and more - finer >= digits - scale
    if is_.type is Type.DECIMAL and was.type is Type.INTEGER:
        return is_.digits[0] - is_.digits[1] >= _INTEGER_DIGITS
    return is_.type is Type.FLOAT and was.type in (Type.INTEGER, Type.DECIMAL)


def _stricter(path: str, was: FieldSpec, is_: FieldSpec) -> Iterator[Consequence]:
    """Rules that refuse what passed."""
    for what in _tighter_rules(was, is_):
        yield Consequence(Effect.DEAD_LETTERS, path, f"{what}: rows beyond it are VALIDATION_FAIL")


def _tighter_rules(was: FieldSpec, is_: FieldSpec) -> Iterator[str]:
    if was.nullable and not is_.nullable:
        yield "nullable: false"
    for name, tighter in (("min", 1), ("min_length", 1), ("max", -1), ("max_length", -1)):
        before, after = getattr(was, name), getattr(is_, name)
        if after is not None and (before is None or _order(after, before) * tighter > 0):
            yield f"{name} {after}" + (f" instead of {before}" if before is not None else "")
    for name in ("length", "regex"):
        before, after = getattr(was, name), getattr(is_, name)
        if after is not None and after != before:
            yield f"{name} {after}"
    if is_.enum is not None and (was.enum is None or not set(was.enum) <= set(is_.enum)):
        gone = ", ".join(sorted(set(was.enum or ()) - set(is_.enum)))
        yield f"enum without {gone}" if gone else "an enum"
    same_type = was.type is is_.type
    if same_type and is_.format != was.format:
        yield f"format {is_.format or 'ISO 8601'} instead of {was.format or 'ISO 8601'}"
    for word in ("true", "false"):
        before, after = getattr(was, word), getattr(is_, word)
        if same_type and after is not None and (before is None or not set(before) <= set(after)):
            yield f"words for {word}: {', '.join(after)}"


def _order(a: Any, b: Any) -> int:
    """-> -1, 0, 1; numbers as numbers, dates as ISO text."""
    try:
        left, right = float(a), float(b)
    except ValueError:
        return (str(a) > str(b)) - (str(a) < str(b))
    return (left > right) - (left < right)


def _presence(name: str, old: DatasetSpec, new: DatasetSpec) -> Iterator[Consequence]:
    """Files that lack a column, or have it under another name."""
    was, is_ = old.named.get(name), new.named.get(name)
    if is_ is None or not (is_.required or not is_.nullable):
        return
    title = is_.from_ or name
    path = f"fields.{name}"
    if was is None or not (was.required or not was.nullable):
        message = f"a file without the column {title!r} is SCHEMA_DRIFT, the whole object; `required: false` takes it"
        yield Consequence(Effect.DEAD_LETTERS, path, message)
    elif (was.from_ or name) != title:
        message = f"read from {title!r} instead of {was.from_ or name!r}: a file with the old header is SCHEMA_DRIFT"
        yield Consequence(Effect.DEAD_LETTERS, path, message)


def _rest(old: DatasetSpec, new: DatasetSpec) -> Iterator[Consequence]:
    """Columns nobody names."""
    was, is_, path = old.rest, new.rest, 'fields."*"'
    if was is not None and is_ is not None:
        yield from _same_column(path, was, is_)
    elif was is not None:
        if new.on_extra is OnExtra.FREEZE:
            message = "a file with a column that is not named is SCHEMA_DRIFT, the whole object"
            yield Consequence(Effect.DEAD_LETTERS, path, message)
        else:
            yield Consequence(Effect.LAKE, path, "columns that are not named end: null in new files")
    elif is_ is not None:
        message = f"further columns of the files come into the lake, {is_.written_type}: null in older files"
        yield Consequence(Effect.LAKE, path, message, breaks=False)
    elif old.on_extra is OnExtra.DISCARD_VALUE and new.on_extra is OnExtra.FREEZE:
        message = "a file with a column that is not named is SCHEMA_DRIFT, the whole object"
        yield Consequence(Effect.DEAD_LETTERS, "on_extra", message)


_READ_OTHERWISE: Final = "files written as before are read otherwise: wrong values, or SCHEMA_DRIFT and VALIDATION_FAIL"


def _reading(old: DatasetSpec, new: DatasetSpec) -> Iterator[Consequence]:
    """How the files are written, and how times in them are meant."""
    for name in type(old.csv).model_fields:
        if getattr(old.csv, name) != getattr(new.csv, name):
            change = f"{getattr(new.csv, name)!r} instead of {getattr(old.csv, name)!r}"
            yield Consequence(Effect.DEAD_LETTERS, f"csv.{name}", f"{change}: {_READ_OTHERWISE}")
    for name, field in new.named.items():
        was = old.named.get(name)
        if was is not None and was.type is field.type is Type.TIMESTAMP and was.timezone != field.timezone:
            change = f"times without a zone are {field.timezone or 'UTC'} instead of {was.timezone or 'UTC'}"
            yield Consequence(Effect.LAKE, f"fields.{name}.timezone", f"{change}: other moments than in older files")


# -- what lies around a dataset
def _around(name: str, old: Config, new: Config) -> Iterator[Consequence]:
    before, after = tenants_of(name, old), tenants_of(name, new)
    for gone in sorted(before - after) if after else ():
        yield Consequence(
            Effect.KEYS,
            "tenant",
            f"tenant {gone} becomes {', '.join(sorted(after))}: every row that is read again is new, in another folder",
        )
    uris = {sink: lake.uri for sink, lake in _lakes(old).items()}
    for sink, lake in _lakes(new).items():
        if sink in uris and uris[sink].rstrip("/") != lake.uri.rstrip("/"):
            message = f"sink {sink} writes to {lake.uri}: older files stay below {uris[sink]}"
            yield Consequence(Effect.LAKE, f"sinks.{sink}.parquet.uri", message)


def _lakes(config: Config) -> dict[str, ParquetSink]:
    """-> of rows, by sink."""
    return {
        name: sink.parquet for name, sink in sinks_of(config).items() if sink.parquet and sink.from_ == "normalized"
    }


def tenants_of(dataset: str, config: Config) -> set[str]:
    """-> tenants of the sources that lead to a dataset."""
    return {spec.tenant for name, spec in config.sources.items() if dataset in checks.targets(name, spec)}


def compatible(verdicts: Iterable[Verdict]) -> bool:
    return all(verdict.compatible for verdict in verdicts)


def as_document(verdicts: Iterable[Verdict]) -> Mapping[str, Any]:
    """-> for JSON."""
    found = list(verdicts)
    return {"compatible": compatible(found), "datasets": [verdict.as_dict() for verdict in found]}
