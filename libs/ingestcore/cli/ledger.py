"""`ingest ledger`: what became of every row of every object."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ingestcore.cli.console import AsJson, out, print_json
from ingestcore.cli.errors import EXIT_FAILED
from ingestcore.cli.target import DEFAULT_FOLDER, Folder, platform
from ingestcore.ledger import ObjectAudit, State, Totals

_COLOURS = {
    State.BALANCED: "green",
    State.PENDING: "dim",
    State.IN_PROGRESS: "cyan",
    State.INCOMPLETE: "yellow",
    State.SUPERSEDED: "dim",
    State.EXPIRED: "dim",
    State.UNBALANCED: "bold red",
}
_PIPE_WIDTH = 1000
"""A pipe has no width: rows must not be folded there."""


def ledger(
    pattern: Annotated[
        str, typer.Argument(metavar="[OBJECT]", help="Part of a URI, a pattern such as '*.csv.gz', or an object id.")
    ] = "",
    unbalanced: Annotated[
        bool, typer.Option("--unbalanced", help="Only objects that do not balance; exit code 1 if there are any.")
    ] = False,
    source: Annotated[str | None, typer.Option(metavar="NAME", help="Only objects of this source.")] = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Show what became of every row of every object, and whether it all adds up.

    rows read = published + duplicates + dead letters + blank; and what is published must be in every sink. Rows a
    reset made the fleet read again are shown as replayed and change nothing else.

    Examples:

      ingest ledger

      ingest ledger 'zip*.csv' --source s3-main

      ingest ledger --unbalanced --json
    """
    from ingestcore.cli.completeness import look

    found = look(platform(folder))
    shown = [o for o in found.objects if _wanted(o, pattern, source) and (not unbalanced or _is_wrong(o))]
    if as_json:
        print_json(document(shown, idle=found.idle))
    else:
        show(out() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH, highlight=False), shown)
    if unbalanced and shown:
        raise typer.Exit(EXIT_FAILED)


def document(objects: Sequence[ObjectAudit], *, idle: bool) -> dict[str, Any]:
    """-> for JSON. idle: nothing is still to come, so what is missing is lost."""
    return {"objects": [o.as_dict() for o in objects], "totals": Totals.of(objects).as_dict(), "idle": idle}


def show(console: Console, objects: Sequence[ObjectAudit]) -> None:
    """Print the table, its totals and a sentence per object that needs one."""
    if not objects:
        console.print("No objects.")
        return
    console.print(table(objects))
    for found in objects:
        if found.note and found.state is not State.PENDING:
            hop = f" at {found.hop.value}" if found.hop else ""
            console.print(escape(f"{_name(found)}: {found.state}{hop}: {found.note}"), style=_COLOURS[found.state])


def table(objects: Sequence[ObjectAudit]) -> Table:
    """-> one row per object and one of totals. read = published + duplicates + dead + blank, and per sink
    published = delivered + what the sink names."""
    total = Totals.of(objects)
    sinks = list(total.delivered)
    drawn = Table(show_footer=True, footer_style="bold", header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    drawn.add_column("object", f"{total.objects} object{'s' * (total.objects != 1)}", overflow="fold")
    drawn.add_column("dataset", "")
    numbers = {"read": "rows read", "published": "published", "duplicates": "duplicates", "dead": "dead letters"}
    numbers |= {"blank": "blank"} | ({"shed": "shed"} if total.shed else {}) | {"replayed": "replayed"}
    for name, title in numbers.items():
        drawn.add_column(title, f"{getattr(total, name):,}", justify="right")
    for sink in sinks:
        drawn.add_column(f"in {sink}", f"{total.delivered[sink]:,}", justify="right")
    drawn.add_column("bytes", f"{total.nbytes:,}", justify="right")
    drawn.add_column("state", ", ".join(f"{n} {state}" for state, n in total.states.items()))
    for found in objects:
        delivered = [f"{found.sinks[s].delivered:,}" if s in found.sinks else "-" for s in sinks]
        values = [f"{getattr(found, name):,}" for name in numbers]
        state = f"[{_COLOURS[found.state]}]{found.state}[/]"
        drawn.add_row(escape(_name(found)), found.origin.dataset, *values, *delivered, f"{found.nbytes:,}", state)
    return drawn


def _name(found: ObjectAudit) -> str:
    return found.origin.uri or found.origin.id


def _is_wrong(found: ObjectAudit) -> bool:
    return found.state is State.UNBALANCED


def _wanted(found: ObjectAudit, pattern: str, source: str | None) -> bool:
    if source is not None and found.origin.source != source:
        return False
    uri = found.origin.uri
    if not pattern or pattern in uri or found.origin.id.startswith(pattern):
        return True
    return fnmatch.fnmatchcase(uri, pattern) or fnmatch.fnmatchcase(uri.rpartition("/")[2], pattern)
