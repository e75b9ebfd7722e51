"""`ingest validate`: every mistake in the files at once."""

from __future__ import annotations

import os

import typer
from rich.markup import escape

from ingestcore.cli.console import AsJson, out, print_json
from ingestcore.cli.errors import EXIT_CONFIGURATION
from ingestcore.cli.files import ConfigFiles, service_settings, show
from ingestcore.datasets.config_file import load, problems
from ingestcore.datasets.problems import Level


def validate(files: ConfigFiles, as_json: AsJson = False) -> None:
    """Check configuration files; needs no server.

    Says file, path, line and what to write instead, for every mistake at once. Warnings do not fail it.

    Examples:

      ingest validate ingest.yaml

      ingest validate sources.yaml datasets.yaml --json | jq '.problems[].message'
    """
    found = problems(files, service_settings(), os.environ)
    errors = sum(problem.level is Level.ERROR for problem in found)
    if as_json:
        print_json({"valid": not errors, "problems": [problem.as_dict() for problem in found]})
    else:
        show(found)
        if not errors:
            config = load(files, service_settings())
            parts = {"sources": config.sources, "datasets": config.datasets, "sinks": config.sinks}
            counts = ", ".join(f"{len(specs)} {name}" for name, specs in parts.items())
            out().print(escape(f"valid: {counts}, {len(found)} warnings"))
    if errors:
        raise typer.Exit(EXIT_CONFIGURATION)
