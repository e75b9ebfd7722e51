"""`ingest run`: one service in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ingestcore.cli import choices
from ingestcore.cli.target import DEFAULT_FOLDER, Folder, environment


def run(
    service: Annotated[
        str,
        typer.Argument(help="Service, e.g. csv-parser; or two neighbours, A+B.", autocompletion=choices.services),
    ],
    replica: Annotated[
        str | None, typer.Option("--replica", help="Replica id: INGEST_REPLICA, else the pod's ordinal, else 0.")
    ] = None,
    sink: Annotated[str | None, typer.Option("--sink", help="For services that run once per sink: its name.")] = None,
    config: Annotated[
        list[Path] | None, typer.Option("--config", help="File whose `services` settings to use; may be repeated.")
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Run one service until SIGTERM, as a container does. Settings come from the environment.

    Examples:

      ingest run csv-parser

      ingest run csv-parser --replica 1

      ingest run parquet-sink --sink lake

      ingest run chunk-downloader+csv-parser
    """
    from ingestcore.cli.config.files import read
    from ingestcore.runtime.process import run_service

    settings = read(config).environment() if config else {}
    environ = {**settings, **environment(folder)}
    raise typer.Exit(run_service(service, replica=replica, instance=sink, environ=environ))
