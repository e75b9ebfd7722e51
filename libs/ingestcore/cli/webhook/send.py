"""`ingest webhook send`: what a producer does, from the command line: sign a file as its source wants, post it. And
what an operator wants to see then: where the event goes."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from ingestcore.cli import choices
from ingestcore.cli.console import AsJson, print_json
from ingestcore.cli.errors import EXIT_CONFIGURATION, EXIT_FAILED, OperatorError
from ingestcore.cli.target import DEFAULT_FOLDER, Folder, environment, platform
from ingestcore.datasets.problems import nearest

app = typer.Typer(name="webhook", help="Webhooks, as their producers see them.", no_args_is_help=True)

_ROOT = "http://127.0.0.1:3001"
_ANSWER_SECONDS = 30.0
_FOLLOW_SECONDS = 30.0


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
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go after the event until it is a row, or a dead letter.")
    ] = True,
    deadline: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long to go after it, from the answer on.", min=0)
    ] = _FOLLOW_SECONDS,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Sign a file with the first secret of a source, post it, and follow the event to its row.

    Printed are the answer and each step with its time after the event was accepted: parsed, published, in Postgres (the
    moment it was seen there). Exit code 1 when it was refused, has become a dead letter, or has not arrived in time.

    The source is taken from the applied configuration, its secrets from this shell's environment.

    Examples:

      ingest webhook send shop order.json

      ingest webhook send shop order.json --id order-7-paid --url https://hooks.example.com

      ingest webhook send shop many.ndjson --batch --no-follow
    """
    from ingestcore.cli.webhook.follow import Follower, arrived
    from ingestcore.datasets.webhook_signing import proof
    from ingestcore.kafka import config_topic

    body, target = _read(file), platform(folder)
    specs = config_topic.read(target, environment(folder))
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
    if not as_json:
        typer.echo(told)
    taken = _taken(told)
    follower = Follower(target, specs, folder, source, deadline, quiet=as_json)
    stories = follower.follow(taken) if follow else []
    if as_json:
        print_json({"status": status, "answer": _as_json(told), "events": [story.as_dict() for story in stories]})
    if status >= 300 or status == 207:
        raise OperatorError(f"{place} answers {status}: {_detail(told)}")
    if follower.late or not all(arrived(story) for story in stories):
        raise typer.Exit(EXIT_FAILED)


def _taken(told: str) -> list[tuple[str, bool]]:
    """-> id of each event that was taken, and whether it was a repeat."""
    answer = _as_json(told)
    items = answer.get("items", [answer]) if isinstance(answer, dict) else []
    return [(item["event_id"], item["duplicate"]) for item in items if "event_id" in item]


def _as_json(told: str) -> Any:
    """-> None: it is none."""
    try:
        return json.loads(told)
    except ValueError:
        return None


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
        return "some items were refused" if '"items"' in told else "no problem document: is it a gateway?"
