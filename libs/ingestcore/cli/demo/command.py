"""`ingest demo`: the whole way once, on this machine, with an answer that is known beforehand."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ingestcore.cli.demo.names import DATASET, KEY, LAKE_URI, SOURCE_BUCKET
from ingestcore.cli.errors import EXIT_CONFIGURATION, EXIT_FAILED, OperatorError
from ingestcore.cli.fleet import control
from ingestcore.cli.fleet.up import up
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


def demo(
    megabytes: Annotated[float, typer.Option(min=1, help="Size of the generated CSV, in MB.")] = 200,
    folder: Annotated[Path, typer.Option("--dir", metavar="FOLDER", help="Everything is kept here.")] = Path(
        ".ingest/demo"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the fleet running, to look around.")] = False,
    seed: Annotated[int, typer.Option(help="Another seed makes other rows.")] = 0,
) -> None:
    """Generate a CSV with repeats and broken rows, send it through real Kafka and S3, compare what comes out.

    Exit code 1 when the Parquet rows, the dead letters or the ledger differ from what the generator knows.

    Examples:

      ingest demo

      ingest demo --megabytes 1000 --keep
    """
    console = Console(highlight=False)
    started = time.monotonic()
    layout = _fresh(folder)
    _say(console, 1, f"Generating {megabytes:g} MB of orders, some repeated, some broken")
    truth, expected = _generate(console, layout.folder, megabytes, seed)
    _say(console, 2, "Starting Kafka, S3 and Redis here, then one process per service")
    config = _configure(layout.folder)
    up([config], detach=True, replicas=None, compose=None, rekey=False, folder=folder)
    try:
        right = _run(console, folder, truth, expected)
    finally:
        if keep:
            console.print(f"\nThe fleet is still running: `ingest down --dir {folder}` stops it.")
        else:
            control.down(folder)
    took = f"The whole demo took {time.monotonic() - started:.0f} s."
    if not right:
        console.print(f"\n[bold red]Something differs.[/] {took} Look into {folder}/logs.", soft_wrap=True)
        raise typer.Exit(EXIT_FAILED)
    console.print(f"\n[bold green]Nothing lost, nothing doubled.[/] {took}")


def _run(console: Console, folder: Path, truth: Truth, expected: Path) -> bool:
    from ingestcore.cli.demo.progress import Bars
    from ingestcore.cli.demo.report import report

    _say(console, 3, f"Uploading to s3://{SOURCE_BUCKET}/{KEY}, watching the rows go through")
    _upload(folder, truth.path)
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
    _look_further(console, folder)
    return right


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
    from ingestcore.testing.generate import Rows

    path = folder / "ingest.yaml"
    config = {
        "sources": {
            "demo": {
                "s3": {"bucket": SOURCE_BUCKET, "prefix": "raw/", "poll_interval": "1s"},
                "provenance": {"purpose": "demo", "ingestedBy": "ingest demo"},
                "route": {"orders*.csv": DATASET},
            }
        },
        "datasets": {DATASET: Rows().shape.spec},
        "sinks": {
            "lake": {"parquet": {"uri": LAKE_URI, "max_age": "3s"}},
            "dlq": {"from": "dlq", "parquet": {"uri": LAKE_URI, "max_age": "2s"}},
        },
    }
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def _upload(folder: Path, path: Path) -> None:
    import os

    from ingestcore.stores.s3 import open_store

    reach = {**environment(folder), **os.environ}
    store = open_store(
        endpoint_url=platform(folder).s3_endpoint_url,
        region=reach.get("AWS_REGION"),
        access_key_id=reach.get("AWS_ACCESS_KEY_ID"),
        secret_access_key=reach.get("AWS_SECRET_ACCESS_KEY"),
    )
    store.put_new(SOURCE_BUCKET, KEY, path)


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
    {folder}/ingest.yaml   the configuration; `ingest apply` changes it while all runs
    {folder}/logs          one log per process""",
        markup=False,
        soft_wrap=True,
    )


def _say(console: Console, number: int, text: str) -> None:
    console.print(f"\n[bold cyan]{number}.[/] [bold]{escape(text)}[/]")
