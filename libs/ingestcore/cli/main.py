"""`ingest`: the command line of the platform. One module per command; this one only puts them together."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence

import typer
from rich.markup import escape

from ingestcore.cli import apply, explain, fleet, infer, preview, run, status, tap, topics, trace, up, validate, webhook
from ingestcore.cli.console import err
from ingestcore.cli.errors import explained
from ingestcore.datasets.problems import ConfigError

ELSEWHERE = ("ledger", "demo")
"""Commands in modules `ingestcore.cli.NAME`, function NAME, of parts that may not be installed."""


def build() -> typer.Typer:
    """-> the application with all its commands."""
    app = typer.Typer(
        name="ingest",
        help="Files in S3 -> Kafka -> deduplicated Parquet, every row accounted for.\n\n"
        "Begin with `ingest demo`, or let `ingest infer` write a configuration; `ingest validate` and `ingest up` it.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    run_it, configure, look = "Run", "Configure", "Look"
    app.command(rich_help_panel=run_it)(up.up)
    app.command(rich_help_panel=run_it)(fleet.stop)
    app.command(rich_help_panel=run_it)(fleet.start)
    app.command(rich_help_panel=run_it)(fleet.down)
    app.command(rich_help_panel=run_it)(run.run)
    app.command(rich_help_panel=configure)(infer.infer)
    app.command(rich_help_panel=configure)(validate.validate)
    app.command(rich_help_panel=configure)(preview.preview)
    app.command(rich_help_panel=configure)(apply.apply)
    app.command(rich_help_panel=look)(status.status)
    app.command(rich_help_panel=look)(topics.topics)
    app.command(rich_help_panel=look)(tap.tap)
    app.command(rich_help_panel=look)(trace.trace)
    app.command(rich_help_panel=look)(explain.explain)
    app.add_typer(webhook.app, rich_help_panel=run_it)
    for name in ELSEWHERE:
        if importlib.util.find_spec(f"ingestcore.cli.{name}") is not None:
            app.command(name, rich_help_panel=look)(getattr(importlib.import_module(f"ingestcore.cli.{name}"), name))
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit. Expected errors are one message without a traceback."""
    try:
        build()(args=None if arguments is None else list(arguments), prog_name="ingest")
    except Exception as error:
        known = explained(error)
        if known is None:
            raise
        if isinstance(error, ConfigError):
            from ingestcore.cli.files import show

            show(error.problems)
        else:
            err().print(f"[red]ingest:[/red] {escape(str(known))}")
        sys.exit(known.exit_code)


if __name__ == "__main__":
    main()
