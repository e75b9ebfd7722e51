"""The demo's second way: signed events with retries, through gateway and Kafka into Postgres, checked to the row."""

from __future__ import annotations

import contextlib
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ingestcore.cli.demo.arrivals import LOOK_SECONDS, Arrivals
from ingestcore.cli.demo.events import Burst
from ingestcore.cli.demo.names import EVENTS, SCHEMA, WEBHOOK
from ingestcore.cli.demo.producers import Answers, deliver
from ingestcore.cli.demo.report import verdict
from ingestcore.cli.errors import OperatorError
from ingestcore.cli.looking import completeness
from ingestcore.fleet.calls import answer
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.record import read_record
from ingestcore.kafka.reading import read_all
from ingestcore.ledger import ObjectAudit, State
from ingestcore.messages.dead_letters import DeadLetter
from ingestcore.messages.events import URI_SCHEME
from ingestcore.settings import Platform

_ROWS_SECONDS: Final = 60.0
_LEDGER_SECONDS: Final = 60.0
_HEALTH_SECONDS: Final = 5.0
_MOST_WRONG: Final = 5


def url(folder: Path) -> str:
    """-> where the demo's source is posted to. Raises OperatorError: its gateway does not say."""
    for row in read_record(Layout.of(folder)).rows():
        reply = (
            answer(row.admin_port, "/health/detailed", _HEALTH_SECONDS) if row.service == "webhook-gateway" else None
        )
        if reply is not None:
            return str(reply.told()["adapters"][WEBHOOK]["url"])
    raise OperatorError(f"the gateway does not say where it listens: `ingest status --dir {folder}`")


def send(console: Console, burst: Burst, place: str, secret: str, database_url: str) -> tuple[Answers, Arrivals]:
    """Post the burst and wait for its rows. Raises OperatorError: a server does not answer."""
    console.print(
        f"    {len(burst.posts) + len(burst.late):,} posts to {escape(place)}: {len(burst.rows):,} distinct events, "
        f"some of them up to four times, {len(burst.misfits)} that are no row of the dataset, and forged, broken and "
        "reused ones",
        soft_wrap=True,
    )
    with _postgres(), Arrivals(database_url) as arrivals:
        answers = deliver(place, secret, burst)
        arrivals.wait(burst.rows, _ROWS_SECONDS)
    table = _table("answer", "posts", "expected", "")
    expected = burst.answers()
    for became in sorted({*expected, *answers.count}, key=lambda name: -expected[name]):
        got, wanted = answers.count[became], expected[became]
        table.add_row(escape(became), f"{got:,}", f"{wanted:,}", verdict(got == wanted))
    console.print(table)
    for wrong in answers.wrong[:_MOST_WRONG]:
        console.print(f"    [red]{escape(wrong)}[/]", soft_wrap=True)
    return answers, arrivals


def compare(console: Console, platform: Platform, burst: Burst, answers: Answers, arrivals: Arrivals) -> dict[str, Any]:
    """Print rows, dead letters and ledger beside what was accepted. -> figures; `right`: is everything as it must be?

    Raises OperatorError: Postgres does not answer any more."""
    days = _days(platform)  # waits for what is still under way
    with _postgres():
        rows = arrivals.rows()
    letters = _letters(platform)
    judged = checks(burst, answers, rows, letters, days)
    query = f"SELECT count(*), count(DISTINCT id), sum(amount) FROM {SCHEMA}.{EVENTS}"
    console.print(f"    {query}", soft_wrap=True, markup=False)
    table = _table("Postgres", "there", "accepted", "")
    for name, got, wanted, right in judged:
        table.add_row(name, got, wanted, verdict(right))
    console.print(table)
    took = _took(answers, arrivals)
    if took:
        console.print(
            f"    accept → row in Postgres: p50 {took['p50_ms']:.0f} ms, p95 {took['p95_ms']:.0f} ms (looked at every "
            f"{LOOK_SECONDS * 1000:.0f} ms); the burst took {answers.seconds:.1f} s",
            soft_wrap=True,
        )
    return {
        "posts": len(burst.posts) + len(burst.late),
        "answers": dict(answers.count),
        "seconds": round(answers.seconds, 2),
        "accepted": len(answers.taken),
        "rows": len(rows),
        "dead_letters": letters.total(),
        "accept_to_row": took,
        "right": all(right for *_, right in judged) and answers.count == burst.answers() and not answers.wrong,
    }


def checks(
    burst: Burst,
    answers: Answers,
    rows: Sequence[tuple[Any, ...]],
    letters: Counter[tuple[str, bytes]],
    days: Sequence[ObjectAudit],
) -> list[tuple[str, str, str, bool]]:
    """-> what is compared, what is there, what must be, and whether they are equal to the row. Pure."""
    there, posted = Counter(rows), Counter(burst.rows.values())
    sums = [f"{sum(row[1] for row in some):,}" for some in (rows, burst.rows.values())]
    events = sum(day.read - day.duplicates for day in days)
    balanced = all(day.state is State.BALANCED for day in days)
    count = f"{len(burst.rows):,}"
    accounted = balanced and events == len(answers.taken) == burst.taken
    wanted = Counter(burst.misfits.items())
    return [
        ("rows, distinct ids", f"{len(rows):,}  {len({r[0] for r in rows}):,}", f"{count}  {count}", there == posted),
        ("sum of amounts", sums[0], sums[1], sums[0] == sums[1]),
        ("rows as they were posted", f"{(there & posted).total():,}", count, there == posted),
        ("dead letters, bytes and all", f"{letters.total():,}", f"{wanted.total():,}", letters == wanted),
        ("ledger: distinct events", f"{events:,}", f"{len(answers.taken):,}", accounted),
    ]


@contextlib.contextmanager
def _postgres() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise OperatorError(f"Postgres: {' '.join(str(error).split())}") from error


def _letters(platform: Platform) -> Counter[tuple[str, bytes]]:
    """-> (event id, bytes) of the dead letters of the demo's source, each letter counted once."""
    found: dict[str, tuple[str, bytes]] = {}
    for record in read_all(platform, "dlq"):
        letter = DeadLetter.of(record.value, record.headers)
        if letter.object is not None and letter.object.source == WEBHOOK:
            found[letter.id] = letter.facts["event_id"], letter.raw
    return Counter(found.values())


def _days(platform: Platform) -> list[ObjectAudit]:
    """-> the ledger's account of the source: one entry, around midnight two."""
    completeness.wait_until_idle(platform, timeout_seconds=_LEDGER_SECONDS)
    found = completeness.Watch(platform).wait(1, timeout_seconds=_LEDGER_SECONDS)
    return [day for day in found.objects if day.origin.uri.startswith(f"{URI_SCHEME}{WEBHOOK}/")]


def _took(answers: Answers, arrivals: Arrivals) -> Mapping[str, float]:
    """-> from the first 2xx to the row, in milliseconds; empty: no row has come."""
    took = [max(0.0, seen - answers.taken[id]) for id, seen in arrivals.seen.items() if id in answers.taken]
    if len(took) < 2:
        return {}
    cuts = statistics.quantiles(took, n=100)
    return {"p50_ms": round(cuts[49] * 1000, 1), "p95_ms": round(cuts[94] * 1000, 1)}


def _table(*columns: str) -> Table:
    return Table(*columns, box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
