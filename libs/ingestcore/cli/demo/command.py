"""`ingest demo`: the whole way once, on this machine, with an answer that is known beforehand."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ingestcore.cli.console import AsJson, print_json
from ingestcore.cli.demo.names import DATASET, EVENTS, KEY, LAKE_URI, SCHEMA, SOURCE_BUCKET, WAREHOUSE, WEBHOOK
from ingestcore.cli.errors import EXIT_CONFIGURATION, EXIT_FAILED, OperatorError
from ingestcore.cli.fleet import control
from ingestcore.cli.fleet.up import up
from ingestcore.cli.inputs import open_s3
from ingestcore.cli.looking import completeness, ledger
from ingestcore.cli.target import environment, platform
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.record import is_supervised

if TYPE_CHECKING:
    from ingestcore.testing.generate import Truth

TIMEOUT_SECONDS = 900.0
IDLE_SECONDS = 60.0
_MARK = "demo.txt"
"""Says that a folder is a demo's, and may be made anew."""
_SECRET = "webhook.secret"


def demo(
    megabytes: Annotated[float, typer.Option(min=1, help="Size of the generated CSV, in MB.")] = 200,
    folder: Annotated[Path, typer.Option("--dir", metavar="FOLDER", help="Everything is kept here.")] = Path(
        ".ingest/demo"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the fleet running, to look around.")] = False,
    seed: Annotated[int, typer.Option(help="Another seed makes other rows and events.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Generate a CSV with repeats and broken rows, send it through real Kafka and S3, compare what comes out. Then post
    a burst of signed events, with retries and bad ones, and compare what stands in Postgres.

    Exit code 1 when rows, dead letters or the ledger differ from what the generators know.

    Examples:

      ingest demo

      ingest demo --megabytes 1000 --keep

      ingest demo --megabytes 10 --json
    """
    console = Console(highlight=False, stderr=as_json)
    started = time.monotonic()
    layout = _fresh(folder)
    _say(console, 1, f"Generating {megabytes:g} MB of orders, some repeated, some broken")
    truth, expected = _generate(console, layout.folder, megabytes, seed)
    _say(console, 2, "Starting Kafka, S3, Redis and Postgres here, then one process per service")
    config = _configure(layout.folder)
    up([config], detach=True, replicas=None, compose=None, rekey=False, folder=folder)
    try:
        rows = _rows(console, folder, truth, expected)
        events = _events(console, folder, seed)
        _look_further(console, folder)
    finally:
        if keep:
            console.print(f"\nThe fleet is still running: `ingest down --dir {folder}` stops it.")
        else:
            control.bring_down(layout)
    seconds, right = time.monotonic() - started, rows["right"] and events["right"]
    took = f"The whole demo took {seconds:.0f} s."
    if right:
        console.print(f"\n[bold green]Nothing lost, nothing doubled.[/] {took}")
    else:
        console.print(f"\n[bold red]Something differs.[/] {took} Look into {folder}/logs.", soft_wrap=True)
    if as_json:
        print_json({"right": right, "seconds": round(seconds, 1), "csv": rows, "webhooks": events})
    if not right:
        raise typer.Exit(EXIT_FAILED)


def _rows(console: Console, folder: Path, truth: Truth, expected: Path) -> dict[str, Any]:
    """Files to Parquet. -> figures; `right`: is everything as it must be?"""
    from ingestcore.cli.demo.progress import Bars
    from ingestcore.cli.demo.report import report

    _say(console, 3, f"Uploading to s3://{SOURCE_BUCKET}/{KEY}, watching the rows go through")
    open_s3(folder).put_new(SOURCE_BUCKET, KEY, truth.path)
    with Bars(console, Layout.of(folder), truth.rows, truth.nbytes) as bars:
        audit = completeness.Watch(platform(folder))
        found = audit.wait(1, timeout_seconds=TIMEOUT_SECONDS, on_look=bars.looked)
    completeness.wait_until_idle(platform(folder), timeout_seconds=IDLE_SECONDS)  # the dead letters, too
    console.print(
        f"    {truth.nbytes / 1e6:.0f} MB were listed, downloaded, parsed, deduplicated and written as Parquet in "
        f"{bars.seconds:.1f} s",
        soft_wrap=True,
    )
    _say(console, 4, "The ledger: what became of every row")
    ledger.show(console, found.objects)
    _say(console, 5, "The answer, read from S3 by DuckDB, beside what the generator knows")
    right = report(console, environment(folder), truth, expected)
    right = _judge(console, found) and right
    counts = {"rows": truth.rows, "distinct": truth.fresh, "repeats": truth.duplicates, "broken": len(truth.bad)}
    return {"bytes": truth.nbytes, **counts, "seconds": round(bars.seconds, 1), "right": right}


def _events(console: Console, folder: Path, seed: int) -> dict[str, Any]:
    """Webhooks to Postgres. -> the same way."""
    from ingestcore.cli.demo import webhooks
    from ingestcore.cli.demo.events import burst

    posted = burst(seed)
    _say(console, 6, "Posting signed events, with retries and bad ones, to the webhook gateway")
    secret = (folder / _SECRET).read_text().strip()
    reach = environment(folder)
    answers, arrivals = webhooks.send(console, posted, webhooks.url(folder), secret, reach["POSTGRES_URL"])
    _say(console, 7, "The rows in Postgres, beside what was accepted")
    return webhooks.compare(console, platform(folder), posted, answers, arrivals)


def _fresh(folder: Path) -> Layout:
    """-> an empty folder of a demo. Raises OperatorError: it is in use, or not a demo's."""
    layout = Layout.of(folder)
    if is_supervised(layout):
        raise OperatorError(f"a demo still runs in {folder}: `ingest down --dir {folder}` stops it")
    if layout.folder.exists() and any(layout.folder.iterdir()):
        if not (layout.folder / _MARK).exists():
            raise OperatorError(f"{folder} holds something else than a demo: name another --dir", EXIT_CONFIGURATION)
        shutil.rmtree(layout.folder)
    layout.folder.mkdir(parents=True, exist_ok=True)
    (layout.folder / _MARK).write_text("Made by `ingest demo`, which makes this folder anew each time.\n")
    return layout


def _generate(console: Console, folder: Path, megabytes: float, seed: int) -> tuple[Truth, Path]:
    from ingestcore.testing.generate import generate

    path, expected = folder / "orders.csv", folder / "expected.parquet"
    columns = (TextColumn("    {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("writing", total=megabytes * 1e6)
        truth = generate(
            path,
            megabytes=megabytes,
            seed=seed,
            expected=expected,
            on_progress=lambda nbytes: progress.update(task, advance=nbytes),
        )
    console.print(
        f"    {path.name}: {truth.nbytes / 1e6:.0f} MB, {truth.rows:,} rows = {truth.fresh:,} distinct + "
        f"{truth.duplicates:,} exact repeats + {len(truth.bad):,} broken",
        soft_wrap=True,
    )
    return truth, expected


def _configure(folder: Path) -> Path:
    """-> the configuration as an operator would write it."""
    from ingestcore.cli.demo import events, producers
    from ingestcore.testing.generate import Rows

    path, secret = folder / "ingest.yaml", folder / _SECRET
    producers.new_secret(secret)
    config = {
        "sources": {
            "demo": {
                "s3": {"bucket": SOURCE_BUCKET, "prefix": "raw/", "poll_interval": "1s"},
                "provenance": {"purpose": "demo", "ingestedBy": "ingest demo"},
                "route": {"orders*.csv": DATASET},
            },
            WEBHOOK: {
                "http": {"auth": {"scheme": "standard-webhooks", "secrets": [f"${{file:{secret.absolute()}}}"]}},
                "provenance": {"purpose": "demo", "ingestedBy": "ingest demo"},
                "dataset": EVENTS,
            },
        },
        "datasets": {DATASET: Rows().shape.spec, EVENTS: events.SPEC},
        "services": {"webhook-gateway": {"port": 0}},
        "sinks": {
            "lake": {"parquet": {"uri": LAKE_URI, "max_age": "3s"}, "datasets": [DATASET]},
            WAREHOUSE: {"postgres": {"schema": SCHEMA}, "datasets": [EVENTS]},
            "dlq": {"from": "dlq", "parquet": {"uri": LAKE_URI, "max_age": "2s"}},
        },
    }
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def _judge(console: Console, found: completeness.Completeness) -> bool:
    wrong = [o for o in found.objects if o.state != "balanced"]
    if wrong:
        console.print(f"[bold red]The ledger does not balance: {escape(wrong[0].note)}[/]")
    return not wrong


def _look_further(console: Console, folder: Path) -> None:
    console.print(
        f"""
To look further:
    ingest up --dir {folder}         start this fleet again, with its data (or `ingest demo --keep`)
    ingest status --dir {folder}     every process, its memory, how far its group is behind
    ingest ledger --dir {folder}     the account of every object
    ingest topics --dir {folder}     what lies between the services
    {folder}/stack/bin/psql -c 'SELECT * FROM {SCHEMA}.{EVENTS} LIMIT 5'
    {folder}/ingest.yaml   the configuration; `ingest apply` changes it while all runs
    {folder}/logs          one log per process""",
        markup=False,
        soft_wrap=True,
    )


def _say(console: Console, number: int, text: str) -> None:
    console.print(f"\n[bold cyan]{number}.[/] [bold]{escape(text)}[/]")
