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
from ingestcore.fleet.servers import given_servers, platform_of, quiet
from ingestcore.settings import Platform

Folder = Annotated[
    Path, typer.Option("--dir", metavar="FOLDER", envvar="INGEST_DIR", help="Folder of the fleet.", show_default=True)
]
DEFAULT_FOLDER = Path(".ingest")
_CONNECT_SECONDS = 2.0


def environment(folder: Path) -> dict[str, str]:
    """-> variables to add to this process's own, so that it reaches the fleet's servers; empty where none runs.

    Servers that the environment names itself are left as they are.
    """
    offered = environment_of(Layout.of(folder)) or {}
    named = given_servers(os.environ)
    if "s3" in named:  # its credentials are the operator's, too
        offered = {name: value for name, value in offered.items() if not name.startswith(("S3_", "AWS_"))}
    return {name: value for name, value in offered.items() if not os.environ.get(name)}


def platform(folder: Path) -> Platform:
    """-> settings, with the servers to talk to.

    Raises OperatorError: no Kafka is named, none runs here; pydantic.ValidationError: a setting is wrong.
    """
    variables = {**environment(folder), **os.environ}
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
