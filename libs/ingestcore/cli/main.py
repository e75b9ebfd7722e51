"""`ingest`: the command line of the platform. One module per command; this one puts them together."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer
from rich.markup import escape

from ingestcore.cli.config.apply import apply
from ingestcore.cli.config.infer import infer
from ingestcore.cli.config.preview import preview
from ingestcore.cli.config.validate import validate
from ingestcore.cli.console import err
from ingestcore.cli.demo.command import demo
from ingestcore.cli.errors import explained
from ingestcore.cli.fleet.control import down, start, stop
from ingestcore.cli.fleet.run import run
from ingestcore.cli.fleet.status import status
from ingestcore.cli.fleet.up import up
from ingestcore.cli.looking.explain import explain
from ingestcore.cli.looking.ledger import ledger
from ingestcore.cli.looking.tap import tap
from ingestcore.cli.looking.topics import topics
from ingestcore.cli.looking.trace import trace
from ingestcore.cli.webhook.send import app as webhook
from ingestcore.datasets.problems import ConfigError


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
    app.command(rich_help_panel=run_it)(up)
    app.command(rich_help_panel=run_it)(stop)
    app.command(rich_help_panel=run_it)(start)
    app.command(rich_help_panel=run_it)(down)
    app.command(rich_help_panel=run_it)(run)
    app.command(rich_help_panel=configure)(infer)
    app.command(rich_help_panel=configure)(validate)
    app.command(rich_help_panel=configure)(preview)
    app.command(rich_help_panel=configure)(apply)
    app.command(rich_help_panel=look)(status)
    app.command(rich_help_panel=look)(topics)
    app.command(rich_help_panel=look)(tap)
    app.command(rich_help_panel=look)(trace)
    app.command(rich_help_panel=look)(explain)
    app.add_typer(webhook, rich_help_panel=run_it)
    app.command(rich_help_panel=look)(ledger)
    app.command(rich_help_panel=look)(demo)
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
            from ingestcore.cli.config.files import show

            show(error.problems)
        else:
            err().print(f"[red]ingest:[/red] {escape(str(known))}")
        sys.exit(known.exit_code)


if __name__ == "__main__":
    main()
