"""`ingest ledger`: what became of every row of every object."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ingestcore.cli import choices
from ingestcore.cli.choices import names_object
from ingestcore.cli.console import AsJson, out, print_json
from ingestcore.cli.errors import EXIT_FAILED
from ingestcore.cli.looking.moments import moment
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
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only objects of this source.", autocompletion=choices.sources),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Only objects something happened to since: 1h, 7d, 2026-01-31T12:00:00Z."),
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Show what became of every row of every object, and whether it all adds up.

    rows read = published + duplicates + dead letters + blank; and what is published must be in every sink. Rows a
    reset made the fleet read again are shown as replayed and change nothing else.

    Examples:

      ingest ledger

      ingest ledger 'zip*.csv' --source s3-main

      ingest ledger --since 1h

      ingest ledger --unbalanced --json
    """
    from ingestcore.cli.looking.completeness import look

    since_ms = int(moment(since, "--since").timestamp() * 1000) if since else 0
    found = look(platform(folder))
    shown = [o for o in found.objects if _wanted(o, pattern, source, since_ms) and (not unbalanced or _is_wrong(o))]
    if as_json:
        print_json(document(shown, settled=not found.open))
    else:
        show(out() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH, highlight=False), shown)
    if unbalanced and shown:
        raise typer.Exit(EXIT_FAILED)


def document(objects: Sequence[ObjectAudit], *, settled: bool) -> dict[str, Any]:
    """-> for JSON. settled: no row of any object is still under way."""
    return {"settled": settled, "objects": [o.as_dict() for o in objects], "totals": Totals.of(objects).as_dict()}


def show(console: Console, objects: Sequence[ObjectAudit]) -> None:
    """Print the table, or two lines per object where it is too wide; then a sentence per object that needs one."""
    if not objects:
        console.print("No objects.")
        return
    drawn = table(objects)
    if console.measure(drawn, options=console.options.update(max_width=_PIPE_WIDTH)).maximum <= console.width:
        console.print(drawn)
    else:
        for found in objects:
            console.print(f"{escape(_name(found))}  {found.origin.dataset}  {_state(found)}", soft_wrap=True)
            console.print(f"  {_sentence(found)}", soft_wrap=True)
        total = Totals.of(objects)
        if total.objects > 1:
            console.print(f"[bold]{total.objects} objects[/]  {_states(total)}\n  {_sentence(total)}", soft_wrap=True)
    for found in objects:
        if found.note and found.state is not State.PENDING:
            hop = f" at {found.hop.value}" if found.hop else ""
            console.print(escape(f"{_name(found)}: {found.state}{hop}: {found.note}"), style=_COLOURS[found.state])


def _sentence(found: ObjectAudit | Totals) -> str:
    """-> the two equations in words."""
    if isinstance(found, Totals):
        delivered: dict[str, int] = dict(found.delivered)
    else:
        delivered = {name: tally.delivered for name, tally in found.sinks.items()}
    shed = f" + shed {found.shed:,}" if found.shed else ""
    sinks = "".join(f"; in {name} {rows:,}" for name, rows in delivered.items())
    return (
        f"rows read {found.read:,} = published {found.published:,} + duplicates {found.duplicates:,} + dead letters "
        f"{found.dead:,} + blank {found.blank:,}{shed}{sinks}; replayed {found.replayed:,}; {found.nbytes:,} bytes"
    )


def _state(found: ObjectAudit) -> str:
    return f"[{_COLOURS[found.state]}]{found.state}[/]"


def _states(total: Totals) -> str:
    return ", ".join(f"{count} {state}" for state, count in total.states.items())


def table(objects: Sequence[ObjectAudit]) -> Table:
    """-> one row per object and one of totals. read = published + duplicates + dead + blank, and per sink
    published = delivered + what the sink names."""
    total = Totals.of(objects)
    sinks = list(total.delivered)
    drawn = Table(show_footer=True, footer_style="bold", header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    drawn.add_column("object", f"{total.objects} object{'s' * (total.objects != 1)}", no_wrap=True)
    drawn.add_column("dataset", "", no_wrap=True)
    numbers = {"read": "rows read", "published": "published", "duplicates": "duplicates", "dead": "dead letters"}
    numbers |= {"blank": "blank"} | ({"shed": "shed"} if total.shed else {}) | {"replayed": "replayed"}
    for name, title in numbers.items():
        drawn.add_column(title, f"{getattr(total, name):,}", justify="right", no_wrap=True)
    for sink in sinks:
        drawn.add_column(f"in {sink}", f"{total.delivered[sink]:,}", justify="right", no_wrap=True)
    drawn.add_column("bytes", f"{total.nbytes:,}", justify="right", no_wrap=True)
    drawn.add_column("state", _states(total), no_wrap=True)
    for found in objects:
        delivered = [f"{found.sinks[s].delivered:,}" if s in found.sinks else "-" for s in sinks]
        values = [f"{getattr(found, name):,}" for name in numbers]
        numbers_shown = (*values, *delivered, f"{found.nbytes:,}")
        drawn.add_row(escape(_name(found)), found.origin.dataset, *numbers_shown, _state(found))
    return drawn


def _name(found: ObjectAudit) -> str:
    return found.origin.uri or found.origin.id


def _is_wrong(found: ObjectAudit) -> bool:
    return found.state is State.UNBALANCED


def _wanted(found: ObjectAudit, pattern: str, source: str | None, since_ms: int) -> bool:
    if source is not None and found.origin.source != source:
        return False
    return found.updated_ms >= since_ms and names_object(pattern, found.origin.id, found.origin.uri)
