"""Where commands write: results to stdout, words to stderr; rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

UNKNOWN = "-"


def out() -> Console:
    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


def err() -> Console:
    return Console(stderr=True, soft_wrap=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """-> an empty table; `right`: columns of numbers. Without a terminal it is never narrower than its content."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=not sys.stdout.isatty())
    return made


def print_table(made: Table) -> None:
    """On stdout. A pipe has no width: rows must not be folded there."""
    console = out() if sys.stdout.isatty() else Console(width=1000, highlight=False)
    console.print(made)


def mib(nbytes: int | None) -> str:
    return UNKNOWN if nbytes is None else f"{nbytes / (1 << 20):.0f} MiB"


def duration(seconds: float | None) -> str:
    """-> `12s`, `3m04s`, `2h05m`, `3d04h`."""
    if seconds is None:
        return UNKNOWN
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"
