"""What `ingest infer` tells: what was looked at, what it took it for, and what it could not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape

from ingestcore.cli.console import err, mib
from ingestcore.cli.inputs import MAX_KEYS, File

if TYPE_CHECKING:
    from ingestcore.inference.datasets import Dataset
    from ingestcore.inference.document import Document
    from ingestcore.inference.sample import Look, Skipped

_LISTED: Final = 10


@dataclass(frozen=True)
class Place:
    """names: of all files, below the prefix, in order; more: the listing goes on behind them."""

    asked: str
    bucket: str
    prefix: str
    bucket_known: bool
    files: dict[str, File]
    more: bool


@dataclass(frozen=True)
class Seen:
    looks: list[Look]
    skipped: list[Skipped]
    nbytes: int


def tell(place: Place, seen: Seen, datasets: Sequence[Dataset]) -> None:
    """On stderr: what was done and what could not be told."""
    console = err()
    looked = len(seen.looks) + len(seen.skipped)
    rows = sum(found.rows for found in datasets)
    more = f"more than {MAX_KEYS:,}" if place.more else f"{len(place.files):,}"
    console.print(
        f"{more} files, {looked:,} looked at ({mib(seen.nbytes)}), {rows:,} rows sampled, {len(datasets)} datasets"
    )
    for found in datasets:
        key = f"key {', '.join(found.key.columns)}" if found.key.columns else "no key: rows are compared whole"
        console.print(escape(f"  {found.name}: {found.rows:,} rows, {len(found.columns)} columns, {key}"))
    tell_skipped(seen.skipped)
    for found in datasets:
        for text in (*found.warnings, *found.remarks):
            console.print(f"[yellow]{escape(found.name)}[/yellow]: {escape(text)}")
        if found.refused:
            console.print(f"[yellow]{escape(found.name)}[/yellow]: {len(found.refused):,} sampled rows can't be read")
        for column in found.columns:
            if column.verdict.remark:
                console.print(escape(f"  {found.name}.{column.name}: {column.verdict.remark}"))
    if looked < len(place.files) or place.more:
        console.print("files not looked at are taken to be like those with such names: --files looks at more")


def tell_skipped(skipped: Sequence[Skipped]) -> None:
    console = err()
    for left in skipped[:_LISTED]:
        console.print(f"[yellow]left out[/yellow] {escape(left.name)}: {escape(left.why)}")
    if len(skipped) > _LISTED:
        console.print(f"[yellow]left out[/yellow] {len(skipped) - _LISTED:,} more")


def as_dict(place: Place, seen: Seen, datasets: Sequence[Dataset], document: Document, text: str) -> dict[str, Any]:
    return {
        "files": len(place.files),
        "looked_at": len(seen.looks) + len(seen.skipped),
        "left_out": [{"file": left.name, "why": left.why} for left in seen.skipped],
        "datasets": [_of_dataset(found) for found in datasets],
        "config": document.value(datasets),
        "yaml": text,
    }


def _of_dataset(found: Dataset) -> dict[str, Any]:
    return {
        "name": found.name,
        "files": list(found.group.names),
        "rows": found.rows,
        "refused": len(found.refused),
        "primary_key": list(found.key.columns),
        "key_reason": found.key.why,
        "revision": found.key.revision,
        "csv": found.csv,
        "columns": [
            {"name": c.name, "title": c.title, **c.spec, "values": c.verdict.values, "remark": c.verdict.remark}
            for c in found.columns
        ],
        "remarks": list(found.remarks),
        "warnings": list(found.warnings),
    }
