"""`ingest tap`: what is in an internal topic, as JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape

from ingestcore.cli import choices
from ingestcore.cli.choices import topic_named
from ingestcore.cli.console import err
from ingestcore.cli.errors import EXIT_CONFIGURATION, OperatorError
from ingestcore.cli.looking.moments import Start, start_of
from ingestcore.cli.target import DEFAULT_FOLDER, Folder, platform
from ingestcore.datasets.registry import NotSeenYet, Registry
from ingestcore.datasets.spec import Dialect
from ingestcore.settings import Platform
from ingestcore.stage import Input

if TYPE_CHECKING:
    from ingestcore.cli.looking.tap_filters import Filters

EXIT_INTERRUPTED: Final = 130
_MOST_NAMES: Final = 20


def tap(
    topic: Annotated[
        str,
        typer.Argument(help="Topic, with or without its prefix: normalized, dlq, ...", autocompletion=choices.topics),
    ],
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WHERE",
            help="earliest, latest, an offset, a time (2026-01-31T12:00:00Z) or how long ago (10m). "
            "By default earliest, with --follow latest.",
        ),
    ] = None,
    partition: Annotated[int | None, typer.Option("--partition", "-p", help="Only this partition.", min=0)] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", help="Stop after so many lines.", min=1)] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Only rows with this value; may be repeated."),
    ] = None,
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="Only this dataset, or name@version.", autocompletion=choices.datasets)
    ] = "",
    object: Annotated[
        str, typer.Option("--object", metavar="OBJECT", help="Part of a URI, a pattern '*.csv.gz', or an object id.")
    ] = "",
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="NAME=TEXT", help="Only records with this header.")
    ] = None,
    records: Annotated[bool, typer.Option("--records", help="One line per record, without its rows.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="The values as they are, e.g. the CSV of blocks.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added; Ctrl-C ends it.")] = False,
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Show what is in an internal topic: one JSON line per row or record, with partition, offset, time and headers.

    Committed records only, read beside the services: no group is joined, no offset moves.

    Examples:

      ingest tap normalized --dataset zipcodes --where zip_code=00501

      ingest tap dlq --where reason=VALIDATION_FAIL | jq '.value | {row, column, value, raw}'

      ingest tap blocks --object 'zip*.csv' --raw --limit 1

      ingest tap ledger --from 10m --follow | jq '.value.entries[].fates'

      ingest tap typed --records --partition 3 --from 1200 --limit 5
    """
    from ingestcore.cli.looking.tap_filters import Filters, pairs

    if raw and (records or where):
        raise OperatorError("--raw prints whole values: it goes with neither --records nor --where", EXIT_CONFIGURATION)
    filters = Filters(pairs(where, "--where"), pairs(header, "--header"), dataset, object)
    begin = start_of(start) if start else Start(latest=follow)
    target = platform(folder)
    logical = topic_named(topic, target.topic_prefix)
    found = _read(target, logical, begin, partition, follow)
    try:
        printed = _print(found, target, filters, records, raw, limit or 0)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if unknown := filters.unknown():
        names = ", ".join(sorted(filters.seen)[:_MOST_NAMES])
        err().print(escape(f"no record of {logical} has a column {', '.join(unknown)}; there are {names}"))
    elif not printed:
        err().print(escape(f"nothing in {target.topic_prefix}{logical} fits"))


def _read(target: Platform, topic: str, start: Start, partition: int | None, endless: bool) -> Iterator[Input | None]:
    """-> records from a start on; None: nothing new for the moment."""
    from ingestcore.kafka.looking import first_after, follow
    from ingestcore.kafka.sweep import Bounds, bounds, sweep

    within = bounds(target, topic)
    if partition is not None:
        if (topic, partition) not in within:
            raise OperatorError(f"{topic} has partitions 0-{len(within) - 1}, no {partition}", EXIT_CONFIGURATION)
        within = {(topic, partition): within[topic, partition]}
    timed = first_after(target, within, start.timestamp_ms) if start.timestamp_ms is not None else {}
    begin = {place: _first(start, at.start, at.end, timed.get(place)) for place, at in within.items()}
    if start.offset is not None:
        _tell_gaps({p: (at.start, at.end) for (_, p), at in within.items()}, start.offset)
    if endless:
        yield from follow(target, begin)
    else:
        yield from sweep(target, {p: Bounds(begin[p], at.end) for p, at in within.items()}, any_format=True)


def _first(start: Start, low: int, end: int, timed: int | None) -> int:
    """-> where to begin in a partition that holds the offsets low..end-1."""
    if start.latest:
        return end
    wanted = start.offset if start.offset is not None else timed
    return low if wanted is None else min(max(wanted, low), end)


def _tell_gaps(bounds: Mapping[int, tuple[int, int]], offset: int) -> None:
    """An offset that is not there is no error where other partitions have it."""
    for partition, (low, end) in bounds.items():
        if offset < low:
            err().print(f"partition {partition} begins at {low}: retention has removed what was before")
        elif offset > end:
            err().print(f"partition {partition} ends at {end}")


def _print(found: Iterator[Input | None], target: Platform, filters: Filters, whole: bool, raw: bool, most: int) -> int:
    """-> lines (or, raw, values) printed."""
    from ingestcore.cli.looking.tap_lines import Asked, encoded, lines

    out = sys.stdout.buffer
    asked = Asked(filters, whole or raw, _dialects(target))
    printed = 0
    for input in found:
        if input is None:
            out.flush()
            continue
        for line in lines(input, asked):
            out.write(input.value if raw else encoded(line))
            printed += 1
            if printed == most:
                out.flush()
                return printed
    out.flush()
    return printed


def _dialects(target: Platform) -> Callable[[str], Dialect]:
    """-> looks up how the blocks of a dataset version are written; the configuration is read when first asked."""

    @lru_cache(maxsize=1)
    def specs() -> Registry:
        from ingestcore.kafka import config_topic

        return config_topic.read(target)

    def dialect(reference: str) -> Dialect:
        try:
            return specs().dataset(reference).csv
        except NotSeenYet:
            return Dialect()

    return dialect
