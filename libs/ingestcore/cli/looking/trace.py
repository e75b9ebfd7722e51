"""`ingest trace`: one row, back to its bytes or its event, and forward to lake and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape

from ingestcore.cli import choices
from ingestcore.cli.choices import names_object
from ingestcore.cli.console import AsJson, err, out, print_json
from ingestcore.cli.errors import EXIT_CONFIGURATION, EXIT_FAILED, OperatorError
from ingestcore.cli.inputs import open_s3
from ingestcore.cli.target import DEFAULT_FOLDER, Folder, environment, platform

if TYPE_CHECKING:
    import pyarrow as pa

    from ingestcore.cli.looking.tap_filters import Filters
    from ingestcore.stage import Input
    from ingestcore.trace.reads import Reads
    from ingestcore.trace.story import Story
    from ingestcore.trace.tracer import Meant

_KEY: Final = re.compile(r"[0-9a-fA-F]{32}")
_MOST_ROWS: Final = 10


def trace(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[OBJECT|KEY|EVENT]",
            help="Address, file name or id of an object; or a row's _key in hex; or the id of an event.",
        ),
    ] = None,
    row: Annotated[
        int | None, typer.Argument(metavar="[ROW]", help="Number of the row in the object, from 1: its _row.", min=1)
    ] = None,
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="With --key: its dataset.", autocompletion=choices.datasets)
    ] = "",
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="COLUMN=VALUE", help="Rows with this value; repeat it for several columns."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Rows traced at most, where several are meant.", min=1)] = _MOST_ROWS,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Follow a row: back to its bytes in S3, verified, or to the event it was made of; and forward to what became of it
    and the files and tables that hold it.

    A row is named by its object and number (`_provenance.sourceUri` and `_row` in the lake), by its key (in Postgres
    `encode(_key, 'hex')`), or by values of its columns; a row of an event also by the event's id. What retention has
    removed is said; what is left is used: ledger, topics, the lake's files, Postgres.

    Examples:

      ingest trace s3://lake/raw/zipcodes.csv 5

      ingest trace zipcodes.csv 5 --json

      ingest trace 0b1c2d3e4f50617283940a1b2c3d4e5f

      ingest trace msg_2f6a1c

      ingest trace --dataset zipcodes --key zip_code=00501
    """
    from ingestcore.kafka import config_topic
    from ingestcore.trace.reads import Reads

    asked = (what is not None and row is not None, what is not None and row is None, bool(key))
    if sum(asked) != 1 or bool(key) != bool(dataset):
        raise OperatorError(
            "name one row: OBJECT ROW, KEY, EVENT, or --dataset NAME --key column=value; see `ingest trace --help`",
            EXIT_CONFIGURATION,
        )
    target = platform(folder)
    specs = config_topic.read(target, environment(folder))
    reads = Reads(target, specs, partial(open_s3, folder))
    if what is not None and row is not None:
        stories = [_of_object(reads, what, row)]
    elif what is not None and (events := _of_event(reads, what, limit)):
        stories = events
    elif what is not None and not _KEY.fullmatch(what):
        stories = _of_letters(reads, what, "events", limit)
        if not stories:
            lost = _forgotten(reads, "events")
            raise OperatorError(
                f"{what!r} is no key (32 hex digits) and no id of an event in topic events{lost}; of an object say the "
                "row, too",
                EXIT_CONFIGURATION,
            )
    else:
        filters = _filters(what or "", dataset, key)
        found = _search(reads, dataset, filters, limit + 1)
        stories = _of_rows(reads, found[:limit], len(found) > limit) or _of_letters(reads, what or "", "typed", limit)
        if not stories:
            raise OperatorError(_nothing(reads, what or "", dataset, key, filters))
    if as_json:
        print_json({"rows": [story.as_dict() for story in stories]})
    else:
        _show(stories)
    if not any(_known(story) for story in stories):
        raise typer.Exit(EXIT_FAILED)


def _of_object(reads: Reads, pattern: str, row: int) -> Story:
    from ingestcore.trace.events import is_of_event
    from ingestcore.trace.tracer import trace
    from ingestcore.trace.trail import Ambiguous, Trail, choose, read_trails

    if is_of_event(pattern):
        raise OperatorError(
            f"rows of {pattern} are numbered by partition: name one by the event's id, or by its _key",
            EXIT_CONFIGURATION,
        )
    trails = read_trails(reads.platform, partial(names_object, pattern))
    try:
        trail, others = choose(trails.found, pattern)
    except Ambiguous as error:
        raise OperatorError(str(error), EXIT_CONFIGURATION) from error
    if trail is None:
        lost = "" if trails.whole else "; retention has removed the beginning of listing and ledger"
        if not pattern.startswith("s3://"):
            raise OperatorError(f"no object {pattern!r} was listed{lost}; give its whole address, s3://bucket/key")
        story = trace(reads, Trail("", pattern), row)
        story.note(f"neither listing nor ledger know the object{lost}")
        return story
    story = trace(reads, trail, row)
    for other in others:
        etag = f"ETag {other.ref.etag}" if other.ref else "ETag unknown"
        story.note(f"another version of the object was read, too: `ingest trace {other.id} {row}` ({etag})")
    return story


def _of_rows(reads: Reads, found: Sequence[Meant], more: bool) -> list[Story]:
    from ingestcore.trace.events import is_of_event
    from ingestcore.trace.tracer import trace, trace_row_of_event
    from ingestcore.trace.trail import Trail, choose, read_trails

    uris = {meant.uri for meant in found if not is_of_event(meant.uri)}
    trails = read_trails(reads.platform, lambda _, uri: uri in uris).found if uris else ()
    if more:
        err().print(f"more rows are meant: the first {len(found)} are traced, --limit takes more")

    def story_of(meant: Meant) -> Story:
        if is_of_event(meant.uri):
            return trace_row_of_event(reads, meant)
        mine = [trail for trail in trails if trail.uri == meant.uri and meant.object_id in ("", trail.id)]
        trail = choose(mine, meant.object_id or meant.uri)[0] or Trail(meant.object_id, meant.uri)
        return trace(reads, trail, meant.row)

    return [story_of(meant) for meant in found]


def _of_event(reads: Reads, id: str, limit: int) -> list[Story]:
    """-> its deliveries, as far as they are in `events`; none: no event has this id."""
    from ingestcore.trace.events import named
    from ingestcore.trace.tracer import trace_event

    return [trace_event(reads, input) for input in islice(named(reads, id), limit)]


def _of_letters(reads: Reads, name: str, topic: str, limit: int) -> list[Story]:
    """-> of events that retention has removed from the topic they were looked for in, what dead letters tell."""
    from ingestcore.trace.letters import of_forgotten

    return of_forgotten(reads, name)[:limit] if name and reads.has_lost(topic) else []


def _filters(key: str, dataset: str, values: Iterable[str] | None) -> Filters:
    from ingestcore.cli.looking.tap_filters import Filters, pairs

    return Filters([("_key", key.lower())] if key else pairs(values, "--key"), dataset=dataset)


def _search(reads: Reads, dataset: str, filters: Filters, limit: int) -> list[Meant]:
    """-> rows that are meant; by values of columns also those that are in the lake alone."""
    from ingestcore.trace.tracer import search

    def fitting(input: Input, batch: pa.RecordBatch) -> list[int]:
        if not filters.dataset_fits(input.headers.get("dataset", "")):
            return []
        found: list[int] = filters.rows(batch).tolist()
        return found

    found = list(islice(search(reads, fitting), limit))
    return found or (list(islice(_in_lake(reads, dataset, filters), limit)) if dataset else [])


def _nothing(reads: Reads, key: str, dataset: str, values: Iterable[str] | None, filters: Filters) -> str:
    unknown = f"; no row has a column {', '.join(filters.unknown())}" if filters.unknown() else ""
    said = f"key {key}" if key else f"{' and '.join(values or ())} in {dataset}"
    where = "the topic typed" if key else "the topic typed or in the lake"
    return f"no row with {said} is in {where}{_forgotten(reads, 'typed')}{unknown}"


def _forgotten(reads: Reads, topic: str) -> str:
    return f"; retention has removed the beginning of {topic}" if reads.has_lost(topic) else ""


def _in_lake(reads: Reads, dataset: str, filters: Filters) -> Iterable[Meant]:
    """-> rows of a dataset's files with these values; which version of the object they are from is not known."""
    from ingestcore.trace.tracer import Meant

    table = dataset.partition("@")[0]

    def fitting(batch: pa.RecordBatch) -> list[int]:
        found: list[int] = filters.rows(batch).tolist()
        return found

    for files in reads.sinks("normalized", table):
        names = [name.partition(".")[0] for name, _ in filters.where]
        for uri, row in files.having(table, names, fitting):
            yield Meant("", uri, row)


def _known(story: Story) -> bool:
    from ingestcore.trace.story import Fate

    return story.fate is not Fate.UNKNOWN or story.raw is not None


def _show(stories: Sequence[Story]) -> None:
    console = out()
    for number, story in enumerate(stories):
        if number:
            console.print()
        for title, text in story.lines():
            console.print(f"[bold]{title:<12}[/bold] {escape(text)}", soft_wrap=True)
