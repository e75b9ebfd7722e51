"""What `ingest preview` tells of a file: rows, refusals, repeats, totals."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from rich.markup import escape

from ingestcore.cli.console import out, print_table, table
from ingestcore.cli.inputs import File
from ingestcore.datasets.spec import DatasetSpec, FieldSpec
from ingestcore.tabular.rehearsal import Refusal, Rehearsal, Repeat
from ingestcore.tabular.texts import shown

_CELL_CHARACTERS: Final = 32
_RAW_CHARACTERS: Final = 80


@dataclass(frozen=True, slots=True)
class Told:
    """dataset: "" without a configuration; repeats: rows whose key an earlier row has."""

    file: File
    dataset: str
    spec: DatasetSpec
    done: Rehearsal
    repeats: Sequence[Repeat]


def show(told: Told, count: int) -> None:
    """On stdout. `count`: rows of each kind."""
    console = out()
    done = told.done
    what = f"dataset {told.dataset}" if told.dataset else "no spec: every column as a string"
    console.print(f"[bold]{escape(told.file.uri)}[/bold], {escape(what)}")
    if done.good and count:
        _show_rows(done, count)
    if done.refused:
        _show_refused(done.refused, count)
    if told.repeats:
        _show_repeats(told, count)
    for line in _totals(told):
        console.print(escape(line))


def _show_rows(done: Rehearsal, count: int) -> None:
    rows, numbers = done.rows(), done.numbers()[:count].tolist()
    heads = {name: escape(f"{name}\n{kind}") for name, kind in _types(done).items()}
    right = tuple(head for name, head in heads.items() if not pa.types.is_string(rows.schema.field(name).type))
    made = table("row\n", *heads.values(), right=("row\n", *right))
    for number, row in zip(numbers, rows.slice(0, count).to_pylist(), strict=True):
        made.add_row(str(number), *(_cell(value) for value in row.values()))
    out().print()
    print_table(made)


def _show_refused(refused: Sequence[Refusal], count: int) -> None:
    out().print(f"\n[bold]refused[/bold]: {len(refused):,}, each a dead letter (`ingest explain REASON`)")
    made = table("row", "REASON", "column", "why", "raw", right=("row",))
    for refusal in refused[:count]:
        made.add_row(
            "all" if refusal.row is None else str(refusal.row),
            refusal.reason.value,
            escape(refusal.column),
            escape(refusal.message + (f", not {refusal.value!r}" if refusal.column else "")),
            escape(_cut(shown(refusal.raw.rstrip(b"\r\n")), _RAW_CHARACTERS)),
        )
    print_table(made)


def _show_repeats(told: Told, count: int) -> None:
    out().print(f"\n[bold]repeats[/bold]: {len(told.repeats):,} rows have the key of an earlier row: published once")
    made = table("row", "repeats row", "raw", right=("row", "repeats row"))
    for repeat in told.repeats[:count]:
        raw = shown(told.done.raw(repeat.row).rstrip(b"\r\n"))
        made.add_row(str(repeat.row), str(repeat.of), escape(_cut(raw, _RAW_CHARACTERS)))
    print_table(made)


def _totals(told: Told) -> list[str]:
    done = told.done
    rows = sum(refusal.row is not None for refusal in done.refused)
    parts = [
        f"{done.records:,} rows",
        f"{done.good - len(told.repeats):,} published",
        f"{len(told.repeats):,} repeats",
        f"{rows:,} refused",
    ]
    parts += [f"{done.blank:,} blank lines or comments"] if done.blank else []
    lines = ["", ", ".join(parts) + f"; key: {_key(told.spec)}"]
    if done.whole_refused:
        lines.append("The whole file would be refused: none of its rows is read.")
    if not done.whole:
        lines.append(f"Only the first {done.nbytes:,} bytes were read (--bytes reads more).")
    for reason, number in Counter(refusal.reason.value for refusal in done.refused).items():
        lines.append(f"  {reason}: {number:,}")
    return lines


def _key(spec: DatasetSpec) -> str:
    keys = spec.key_columns()
    if keys is None:
        return "a row's place in its file, so none repeats"
    return "all columns" if isinstance(keys, str) else ", ".join(keys)


def as_dict(told: Told, count: int) -> dict[str, Any]:
    done = told.done
    rows = done.rows()
    keys = told.spec.key_columns()
    return {
        "file": told.file.uri,
        "dataset": told.dataset or None,
        "whole": done.whole,
        "bytes": done.nbytes,
        "header": list(done.columns),
        "columns": [{"name": name, "type": kind} for name, kind in _types(done).items()],
        "rows": [
            {"_row": number, **row}
            for number, row in zip(done.numbers()[:count].tolist(), rows.slice(0, count).to_pylist(), strict=True)
        ],
        "refused": [_of_refusal(refusal) for refusal in done.refused[:count]],
        "repeats": [
            {"row": repeat.row, "of": repeat.of, "raw": _text(done.raw(repeat.row))} for repeat in told.repeats[:count]
        ],
        "key": list(keys) if isinstance(keys, tuple) else keys,
        "totals": {
            "rows": done.records,
            "published": done.good - len(told.repeats),
            "repeats": len(told.repeats),
            "refused": sum(refusal.row is not None for refusal in done.refused),
            "blank": done.blank,
            "reasons": dict(Counter(refusal.reason.value for refusal in done.refused)),
        },
        "whole_refused": done.whole_refused,
    }


def _of_refusal(refusal: Refusal) -> dict[str, Any]:
    return {
        "row": refusal.row,
        "reason": refusal.reason.value,
        "column": refusal.column or None,
        "value": refusal.value or None,
        "message": refusal.message,
        "raw": _text(refusal.raw),
        "raw_base64": base64.b64encode(refusal.raw).decode(),
    }


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _types(done: Rehearsal) -> dict[str, str]:
    """-> what the type of each column is called in a spec."""
    if done.plan is None:
        return {}
    spec = done.plan.spec
    fields = {name: spec.named.get(name) or spec.rest or FieldSpec() for name in done.plan.schema.names}
    return {name: field.written_type for name, field in fields.items()}


def _cell(value: Any) -> str:
    if value is None:
        return "[dim]null[/dim]"
    return escape(_cut(shown(str(value).encode()), _CELL_CHARACTERS))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
