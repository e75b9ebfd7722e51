"""Which servers a command talks to: those the environment names, else those of the fleet in `--dir`."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from ingestcore.cli.errors import OperatorError
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.record import environment_of
from ingestcore.fleet.servers import given_servers, platform_of, quiet, reaching
from ingestcore.settings import Platform

Folder = Annotated[
    Path, typer.Option("--dir", metavar="FOLDER", envvar="INGEST_DIR", help="Folder of the fleet.", show_default=True)
]
DEFAULT_FOLDER = Path(".ingest")
_CONNECT_SECONDS = 2.0


def offered(folder: Path) -> dict[str, str]:
    """-> variables that reach the fleet's servers, those left out which this process's environment names itself; empty
    where no fleet runs."""
    found = environment_of(Layout.of(folder)) or {}
    s3 = {name: value for name, value in found.items() if name.startswith(("S3_", "AWS_"))}
    rest = {name: value for name, value in found.items() if name not in s3 and not os.environ.get(name)}
    # Endpoint and credentials of an S3 belong together.
    return rest if "s3" in given_servers(os.environ) else {**rest, **s3}


def environment(folder: Path) -> dict[str, str]:
    """-> this process's environment, and in it the fleet's servers, where it names none itself."""
    return reaching(os.environ, offered(folder))


def platform(folder: Path) -> Platform:
    """-> settings, with the servers to talk to.

    Raises OperatorError: no Kafka is named, none runs here; pydantic.ValidationError: a setting is wrong.
    """
    variables = environment(folder)
    found = quiet(platform_of(variables))
    if "kafka" not in given_servers(variables) and not listens(found.kafka_bootstrap):
        raise OperatorError(
            f"nothing runs in {Layout.of(folder).folder}, KAFKA_BOOTSTRAP_SERVERS is not set and nothing answers at "
            f"{found.kafka_bootstrap}: `ingest up` starts a fleet, --dir names another folder"
        )
    return found


def listens(addresses: str) -> bool:
    """Whether anything answers at one of `host:port,host:port`: quick, where Kafka's client waits for long."""
    for address in addresses.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS):
                return True
        except (OSError, ValueError):
            continue
    return False
