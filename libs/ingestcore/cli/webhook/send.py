"""`ingest webhook send`: what a producer does, from the command line: sign a file as its source wants, post it."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from ingestcore.cli import choices
from ingestcore.cli.errors import EXIT_CONFIGURATION, OperatorError
from ingestcore.cli.target import DEFAULT_FOLDER, Folder, platform
from ingestcore.datasets.problems import nearest

app = typer.Typer(name="webhook", help="Webhooks, as their producers see them.", no_args_is_help=True)

_ROOT = "http://127.0.0.1:3001"
_ANSWER_SECONDS = 30.0


@app.callback()
def webhook() -> None:
    """Webhooks, as their producers see them."""


@app.command()
def send(
    source: Annotated[str, typer.Argument(help="Source of the configuration.", autocompletion=choices.sources)],
    file: Annotated[Path, typer.Argument(help="JSON of one event; `-`: standard input.", allow_dash=True)],
    url: Annotated[str, typer.Option(help="Where the gateway listens.", envvar="INGEST_WEBHOOK_URL")] = _ROOT,
    id: Annotated[str | None, typer.Option("--id", help="Of the event; left out: a new one.")] = None,
    batch: Annotated[bool, typer.Option("--batch", help="The file is a JSON array, or lines in *.ndjson.")] = False,
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Sign a file with the first secret of a source and post it; print the answer.

    The source is taken from the applied configuration, its secrets from this shell's environment.

    Examples:

      ingest webhook send shop order.json

      ingest webhook send shop order.json --id order-7-paid --url https://hooks.example.com

      ingest webhook send shop many.ndjson --batch
    """
    from ingestcore.datasets.webhook_signing import proof
    from ingestcore.kafka import config_topic

    body = _read(file)
    specs = config_topic.read(platform(folder), os.environ)
    known = specs.sources_of("http")
    if source not in known:
        meant = nearest(source, known) or f"there are: {', '.join(known) or 'none'}"
        raise OperatorError(f"no source of webhooks is called {source!r}; {meant}", EXIT_CONFIGURATION)
    spec = specs.source(source).http
    assert spec is not None
    media = "application/x-ndjson" if batch and file.suffix in (".ndjson", ".jsonl") else "application/json"
    signed = proof(spec.auth, body, id=id or f"msg_{uuid4().hex}", now=time.time())
    place = f"{url.rstrip('/')}/v1/webhooks/{source}{'/batch' if batch else ''}"
    status, told = _post(place, body, {"Content-Type": media, **signed})
    typer.echo(told)
    if status >= 300:
        raise OperatorError(f"{place} answers {status}: {_detail(told)}")


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise OperatorError(f"{file}: {error.strerror}", EXIT_CONFIGURATION) from error


def _post(place: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    """-> status and text of the answer. Raises OperatorError: there is none."""
    try:
        request = urllib.request.Request(place, body, headers)
    except ValueError as error:
        raise OperatorError(f"--url: {error}", EXIT_CONFIGURATION) from error
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise OperatorError(
            f"{place} does not answer ({reason}): `ingest status` shows the gateway, --url says where it listens"
        ) from error


def _detail(told: str) -> str:
    try:
        return str(json.loads(told)["detail"])
    except (ValueError, KeyError, TypeError):
        return "no problem document: is it a gateway?"
