"""`ingest stop`, `start` and `down`: words to the supervisor of a fleet."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.markup import escape

from ingestcore.cli import choices
from ingestcore.cli.console import out
from ingestcore.cli.errors import OperatorError
from ingestcore.cli.target import DEFAULT_FOLDER, Folder
from ingestcore.fleet.control import NotRunning, ask
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.record import Phase, is_supervised

DOWN_TIMEOUT_SECONDS = 120.0
"""Drain of the services, then Kafka's own shutdown."""
_POLL_SECONDS = 0.1

Services = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SERVICE...",
        help="Service, sink or replica: csv-parser, lake, lake-0.",
        autocompletion=choices.running,
    ),
]


def stop(services: Services = None, folder: Folder = DEFAULT_FOLDER) -> None:
    """Drain services and keep them stopped; without a name, all of them. The servers stay up.

    Returns when they have ended and left their consumer groups, so offsets can be reset.

    Examples:

      ingest stop csv-parser

      ingest stop normalizer lake && kafka-consumer-groups.sh --reset-offsets ...
    """
    answer = ask(Layout.of(folder), {"do": "stop", "names": services or []})
    for row in answer["services"]:
        out().print(escape(f"{_name(row)} stopped"))


def start(services: Services = None, folder: Folder = DEFAULT_FOLDER) -> None:
    """Start services that were stopped or gave up; without a name, all. Returns when they are ready.

    Example:

      ingest start csv-parser
    """
    rows = ask(Layout.of(folder), {"do": "start", "names": services or []})["services"]
    for row in rows:
        process = f" (process {row['pid']})" if row["pid"] else ""
        out().print(escape(f"{_name(row)} {row['state']}{process}"))
    failed = [f"{_name(row)}: {row['reason']}" for row in rows if row["state"] == Phase.FAILED]
    if failed:
        raise OperatorError("\n".join(failed))


def down(folder: Folder = DEFAULT_FOLDER) -> None:
    """Drain and stop everything, the embedded servers included. Data stays in the folder.

    Example:

      ingest down
    """
    layout = Layout.of(folder)
    out().print("stopped" if bring_down(layout) else escape(f"nothing runs in {layout.folder}"))


def bring_down(layout: Layout) -> bool:
    """Stop a fleet. -> did one run? Raises OperatorError: it is still stopping."""
    if not is_supervised(layout):
        return False
    try:
        ask(layout, {"do": "down"})
    except NotRunning:
        if is_supervised(layout):
            raise
    deadline = time.monotonic() + DOWN_TIMEOUT_SECONDS
    while is_supervised(layout):
        if time.monotonic() > deadline:
            raise OperatorError(f"still stopping after {DOWN_TIMEOUT_SECONDS:g} s; see {layout.supervisor_log}")
        time.sleep(_POLL_SECONDS)
    return True


def _name(row: dict[str, Any]) -> str:
    return f"{row['sink'] or row['service']}-{row['replica']}"
