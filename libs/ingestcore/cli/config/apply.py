"""`ingest apply`: publish configuration files; running services follow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape

from ingestcore.cli.config.files import ConfigFiles, read
from ingestcore.cli.console import AsJson, err, out, print_json
from ingestcore.cli.target import DEFAULT_FOLDER, Folder, platform
from ingestcore.datasets.publish import Change, Kind, plan, to_write

_COLOURS = {Kind.ADDED: "green", Kind.CHANGED: "yellow", Kind.REMOVED: "red", Kind.UNCHANGED: "dim"}
_SIGNS = {Kind.ADDED: "+", Kind.CHANGED: "~", Kind.REMOVED: "-", Kind.UNCHANGED: "="}


def apply(
    files: ConfigFiles,
    rekey: Annotated[
        bool, typer.Option("--rekey", help="Allow other keys in a dataset that exists: all its rows will be new.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what is applied and not in these files: they are the whole truth.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, change nothing.")] = False,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Publish sources, datasets and sinks. Running services follow within seconds, without a restart.

    Adds and changes; what the files do not mention stays in force. A changed dataset becomes a new version.

    Examples:

      ingest apply ingest.yaml

      ingest apply new-dataset.yaml --dry-run
    """
    from ingestcore.fleet.bring_up import default_sink_uri
    from ingestcore.kafka import admin, config_topic

    config = read(files)
    target = platform(folder)
    if not dry_run:
        admin.create_topics(target)
    in_force = config_topic.read(target)
    changes = plan(config, in_force, default_sink_uri=default_sink_uri(os.environ), rekey=rekey, prune=prune)
    if not dry_run:
        config_topic.bring_into_force(target, in_force, to_write(changes))
    if as_json:
        print_json({"dry_run": dry_run, "changes": [_as_dict(change) for change in changes]})
        return
    _show(changes, dry_run)
    if config.services:
        err().print("settings under `services` are read when a service starts: `ingest up FILE`, `ingest run --config`")


def _as_dict(change: Change) -> dict[str, str]:
    return {"key": change.key, "kind": change.kind.value, "note": change.note}


def _show(changes: Sequence[Change], dry_run: bool) -> None:
    console = out()
    for change in changes:
        colour = _COLOURS[change.kind]
        note = f"  ({change.note})" if change.note else ""
        console.print(f"[{colour}]{_SIGNS[change.kind]} {escape(change.key)}[/{colour}]{escape(note)}")
    count = len(to_write(changes))
    console.print(f"{count} {'would change' if dry_run else 'applied'}, {len(changes) - count} unchanged")
