"""Inferred datasets -> one configuration, as YAML that says why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ingestcore.inference.datasets import Column, Dataset

_PLAIN: Final = re.compile(r"[A-Za-z][\w /.%$+-]*(?<! )")
_WORDS_OF_YAML: Final = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))
_WIDTH: Final = 118
_COMMENT_COLUMN: Final = 44


@dataclass(frozen=True, slots=True)
class Document:
    """What goes into a configuration beside the datasets.

    asked   what the operator named, for the first line
    source  name; bucket, prefix: where its objects are; bucket_known: not a placeholder
    """

    asked: str
    source: str
    bucket: str
    prefix: str
    bucket_known: bool
    route: Mapping[str, str]
    sink_uri: str

    def value(self, datasets: Iterable[Dataset]) -> dict[str, Any]:
        """-> the configuration without comments, for scripts."""
        s3 = {"bucket": self.bucket} | ({"prefix": self.prefix} if self.prefix else {})
        return {
            "sources": {self.source: {"s3": s3, "route": dict(self.route)}},
            "datasets": {found.name: _dataset_value(found) for found in datasets},
            "sinks": {"lake": {"parquet": {"uri": self.sink_uri}}},
        }

    def text(self, datasets: Sequence[Dataset]) -> str:
        """-> the configuration as YAML."""
        rows = sum(found.rows for found in datasets)
        return "\n".join([*self._introduction(rows), *self._sources(), *_datasets(datasets), *self._sinks()]) + "\n"

    def _introduction(self, rows: int) -> Iterable[str]:
        yield from _comment(f"Inferred from {rows:,} sampled rows of {self.asked}.", "")
        yield from _comment(
            "Types are the tightest that take every sampled row. A row with a value that does not fit, further down or "
            "in another file, is not lost: it becomes a dead letter (VALIDATION_FAIL) with its number and its bytes, "
            "and the other rows go on. A column that must take anything is a `string`.",
            "",
        )
        yield "# Next: `ingest validate` this file, `ingest preview FILE --config` it, `ingest apply` it."
        yield ""

    def _sources(self) -> Iterable[str]:
        yield "sources:"
        yield f"  {_scalar(self.source)}:"
        prefix = f", prefix: {_scalar(self.prefix, flow=True)}" if self.prefix else ""
        where = f"    s3: {{bucket: {_scalar(self.bucket, flow=True)}{prefix}}}"
        yield where if self.bucket_known else _with(where, "where the files will lie: put your bucket here")
        yield _with("    # provenance: {purpose: INV-7, ingestedBy: you}", "on every row, if you want it")
        yield _with("    route:", "the first pattern that matches wins")
        for pattern, dataset in self.route.items():
            line = f"      {_quoted(pattern)}: {_scalar(dataset)}"
            yield line if "*" in pattern else _with(line, "this file alone: others like it go elsewhere")
        yield ""

    def _sinks(self) -> Iterable[str]:
        yield "sinks:"
        yield f"  lake: {{parquet: {{uri: {_quoted(self.sink_uri)}}}}}"


def _datasets(datasets: Sequence[Dataset]) -> Iterable[str]:
    yield "datasets:"
    for found in datasets:
        yield f"  {_scalar(found.name)}:"
        yield from _comment(_about(found), "    ")
        for warning in found.warnings:
            yield from _comment(f"WARNING: {warning}", "    ")
        for remark in found.remarks:
            yield from _comment(remark, "    ")
        yield from _refused(found)
        if found.csv:
            yield f"    csv: {_flow(found.csv)}"
        yield from _key(found)
        yield "    fields:"
        for column in found.columns:
            yield from _field(column, len(found.group.looks))
        if found.spec.rest is not None:
            yield _with('      "*": string', "columns that come later")
        else:
            yield _with("    on_extra: freeze", "without a header columns are known by their place alone")
        yield ""


def _dataset_value(found: Dataset) -> dict[str, Any]:
    spec = found.spec.model_dump(mode="json", exclude_unset=True, by_alias=False, exclude={"fields", "csv"})
    fields: dict[str, Any] = {column.name: column.spec for column in found.columns}
    extra: dict[str, Any] = {}
    if found.spec.rest is not None:
        fields["*"] = "string"
    else:
        extra = {"on_extra": "freeze"}
    return ({"csv": found.csv} if found.csv else {}) | spec | {"fields": fields} | extra


def _about(found: Dataset) -> str:
    names = found.group.names
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
    return f"{found.rows:,} rows sampled of {listed}"


def _refused(found: Dataset) -> Iterable[str]:
    if found.refused:
        first = found.refused[0]
        where = f"row {first.row}: " if first.row else ""
        count = len(found.refused)
        yield from _comment(
            f"{count:,} of the sampled rows would become {'dead letters' if count > 1 else 'a dead letter'}, "
            f"the first: {where}{first.message}",
            "    ",
        )


def _key(found: Dataset) -> Iterable[str]:
    if not found.key.columns:
        yield _with("    dedupe: {keys: all}", f"{found.key.why}: rows are the same where all columns are")
        return
    columns = ", ".join(_scalar(name, flow=True) for name in found.key.columns)
    yield _with(f"    primary_key: [{columns}]", f"named like an id, {found.key.why}")
    if found.key.revision:
        yield _with(f"    revision: {_scalar(found.key.revision)}", "by its name: says which version of a row is newer")
    else:
        yield _with("    # revision: COLUMN", "if a column says which version of a row is newer")


def _field(column: Column, files: int) -> Iterable[str]:
    remarks = [column.verdict.remark] if column.verdict.remark else []
    if column.missing:
        remarks.append(f"missing from {column.missing} of {files} files")
    spec = column.spec
    value = spec["type"] if set(spec) == {"type"} else _flow(spec)
    yield _with(f"      {_scalar(column.name)}: {value}", "; ".join(remarks))


def _with(line: str, remark: str) -> str:
    return f"{line:<{_COMMENT_COLUMN}}  # {_one_line(remark)}" if remark else line


def _comment(text: str, indent: str) -> Iterable[str]:
    """Words as comment lines of a readable width."""
    line = ""
    for word in _one_line(text).split(" "):
        if line and len(indent) + 2 + len(line) + 1 + len(word) > _WIDTH:
            yield f"{indent}# {line}"
            line = ""
        line = f"{line} {word}" if line else word
    yield f"{indent}# {line}"


def _one_line(text: str) -> str:
    """-> the text without what YAML allows not even in comments."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _flow(value: Any) -> str:
    """-> YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(str(key), flow=True)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _scalar(value, flow=True) if isinstance(value, str) else json.dumps(value)


def _scalar(text: str, *, flow: bool = False) -> str:
    """-> a text as YAML: plain where that is beyond doubt, else in double quotes, which JSON's rules fit."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS_OF_YAML and text.isascii()
    return text if plain else _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())
