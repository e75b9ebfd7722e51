"""`ingest up`: servers where none are given, topics, configuration, one process per service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from ingestcore.cli.config.files import read
from ingestcore.cli.errors import EXIT_CONFIGURATION, EXIT_FAILED, OperatorError
from ingestcore.cli.fleet.screens import Lines, LiveTable, where_to_look
from ingestcore.cli.target import DEFAULT_FOLDER, Folder
from ingestcore.fleet.bring_up import Options
from ingestcore.fleet.bring_up import run as run_fleet
from ingestcore.fleet.front import PORT
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.record import fleet_lock

DETACHED_STOP_SECONDS = 60.0
EXIT_INTERRUPTED = 130


def up(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE...]", help="Configuration to apply; none: what is applied.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when all is ready; stay in the back.")] = False,
    replicas: Annotated[
        list[str] | None,
        typer.Option("--replicas", metavar="NAME=N", help="Processes of a service or sink; may be repeated."),
    ] = None,
    compose: Annotated[
        list[str] | None,
        typer.Option(metavar="A+B", help="Run two neighbours in one process, without the topic between them."),
    ] = None,
    rekey: Annotated[bool, typer.Option("--rekey", help="As of `ingest apply`.")] = False,
    port: Annotated[
        int,
        typer.Option(
            "--port", envvar="INGEST_ADMIN_PORT", min=0, max=65535, help="Health, metrics and admin of all processes."
        ),
    ] = PORT,
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Run the whole platform on this machine: one process per service, restarted when it crashes.

    Kafka, S3 and Redis are taken from KAFKA_BOOTSTRAP_SERVERS (or KAFKA_BROKERS), S3_ENDPOINT_URL and REDIS_URL; those
    not set are started here, with their data in the folder. So is Postgres where a sink of the files is for it and
    POSTGRES_URL is not set. Ctrl-C drains everything. Health, metrics and admin of all processes are served together on
    one port (8080; another where that is taken, which is said).

    Examples:

      ingest up ingest.yaml

      ingest up ingest.yaml --detach --replicas csv-parser=2 --replicas lake=2

      ingest up ingest.yaml --compose chunk-downloader+csv-parser

      ingest up --dir /srv/ingest
    """
    counts = parse_replicas(replicas or [])
    read(files or [])  # tells what is wrong before anything is started
    options = Options(folder, tuple(files or ()), counts, rekey, tuple(compose or ()), port)
    try:
        if detach:
            _run_detached(options)
        else:
            _run_here(options)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


def parse_replicas(texts: list[str]) -> dict[str, int]:
    """`csv-parser=2,lake=2` -> counts. Raises OperatorError."""
    counts = {}
    for part in (part for text in texts for part in text.split(",")):
        name, _, count = part.strip().partition("=")
        if not name or not count.isdigit():
            raise OperatorError(f"--replicas {part!r}: write NAME=N, e.g. csv-parser=2", EXIT_CONFIGURATION)
        counts[name] = int(count)
    return counts


def _run_here(options: Options) -> None:
    layout = Layout.of(options.folder)

    def at_ready() -> list[str]:
        return where_to_look(options.folder, layout.stack / "bin")

    with LiveTable(at_ready) if sys.stderr.isatty() else Lines(at_ready) as screen:
        run_fleet(options, screen)
        screen.progress("stopped")


def _run_detached(options: Options) -> None:
    """Start a supervisor of its own session, pass on what it says until it is ready."""
    layout = Layout.of(options.folder)
    layout.make()
    with fleet_lock(layout):
        pass  # says at once that another fleet runs here
    screen = Lines(lambda: where_to_look(options.folder, layout.stack / "bin"))
    with layout.supervisor_log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ingestcore.cli.fleet.detached", options.encode()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        _await_ready(process, layout, screen)
    except BaseException:
        process.terminate()
        try:
            process.wait(DETACHED_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()  # everything below it dies with it
        raise


def _await_ready(process: subprocess.Popen[str], layout: Layout, screen: Lines) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        message = json.loads(line)
        if "error" in message:
            raise OperatorError(message["error"], message["code"])
        if "ready" in message:
            screen.ready([])
            return
        screen.progress(message["progress"])
    raise OperatorError(f"the supervisor ended unexpectedly; see {layout.supervisor_log}", EXIT_FAILED)
