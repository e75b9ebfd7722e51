"""`ingest validate`: every mistake in the files at once; what they mean for the lake; what a change of them does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ingestcore.cli.config.files import ConfigFiles, service_settings, show
from ingestcore.cli.console import AsJson, out, print_json
from ingestcore.cli.errors import EXIT_CONFIGURATION, EXIT_FAILED, OperatorError
from ingestcore.datasets.compatibility import Kind, Verdict, as_document, compare, compatible, tenants_of
from ingestcore.datasets.config_file import Config, load, problems
from ingestcore.datasets.engines import Engine
from ingestcore.datasets.problems import Level
from ingestcore.datasets.publish import datasets_of, sinks_of


def validate(
    files: ConfigFiles,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="OLD", help="Say what the change from this file does; may be repeated. Exit code 1: breaks."
        ),
    ] = None,
    ddl: Annotated[Engine | None, typer.Option(help="Print the DDL of the lake's tables for this engine.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check configuration files; needs no server.

    Says file, path, line and what to write instead, for every mistake at once. Warnings do not fail it.

    With --against: for each dataset, whether rows already published would come again as new ones, which columns change
    in the lake and what readers see in older files, and what would become dead letters.

    Examples:

      ingest validate ingest.yaml

      ingest validate sources.yaml datasets.yaml --json | jq '.problems[].message'

      ingest validate new.yaml --against ingest.yaml && ingest apply new.yaml

      ingest validate ingest.yaml --ddl athena > tables.sql

      ingest validate ingest.yaml --ddl duckdb | duckdb -init /dev/stdin
    """
    if against and ddl:
        raise OperatorError("--ddl and --against answer two questions: ask one at a time", EXIT_CONFIGURATION)
    found = problems(files, service_settings(), os.environ)
    errors = sum(problem.level is Level.ERROR for problem in found)
    asked = bool(against or ddl) and not errors
    if as_json and not asked:
        print_json({"valid": not errors, "problems": [problem.as_dict() for problem in found]})
    elif not as_json:
        show(found)
    if errors:
        raise typer.Exit(EXIT_CONFIGURATION)
    config = load(files, service_settings())
    if ddl:
        _print_ddl(config, ddl, as_json)
    elif against:
        _print_change(load(against, service_settings()), config, as_json)
    elif not as_json:
        parts = {"sources": config.sources, "datasets": config.datasets, "sinks": config.sinks}
        counts = ", ".join(f"{len(specs)} {name}" for name, specs in parts.items())
        out().print(escape(f"valid: {counts}, {len(found)} warnings"))


def _print_ddl(config: Config, engine: Engine, as_json: bool) -> None:
    statements = list(_statements(config, engine))
    if as_json:
        print_json({"engine": engine.value, "tables": statements})
    else:
        typer.echo("\n".join(made["sql"] for made in statements), nl=False)


def _statements(config: Config, engine: Engine) -> list[dict[str, Any]]:
    """-> a statement for each dataset of each sink, and for its dead letters."""
    from ingestcore.fleet.bring_up import default_sink_uri
    from ingestcore.tabular.ddl import dataset_table, letters_table, statement

    made = []
    for sink, spec in sinks_of(config, default_sink_uri(os.environ)).items():
        if spec.parquet is None:
            continue  # a database's tables are made by its sink
        if spec.from_ == "dlq":
            tables = [letters_table(spec.parquet.uri, (source.tenant for source in config.sources.values()))]
        else:
            wanted = spec.datasets or tuple(datasets_of(config))
            tables = [
                dataset_table(name, dataset, spec.parquet.uri, tenants_of(name, config))
                for name, dataset in datasets_of(config).items()
                if name in wanted
            ]
        made += [{"sink": sink, "table": table.name, "sql": statement(engine, table)} for table in tables]
    return made


def _print_change(old: Config, new: Config, as_json: bool) -> None:
    verdicts = compare(old, new)
    if as_json:
        print_json(as_document(verdicts))
    else:
        for verdict in verdicts:
            _print_verdict(verdict)
    if not compatible(verdicts):
        raise typer.Exit(EXIT_FAILED)


def _print_verdict(verdict: Verdict) -> None:
    console = out()
    word = "compatible" if verdict.compatible else "NOT compatible"
    colour = "green" if verdict.compatible else "red"
    told = "" if verdict.kind is Kind.UNCHANGED else f", [{colour}]{word}[/{colour}]"
    console.print(f"[bold]{escape(verdict.dataset)}[/bold]: {verdict.kind.value}{told}")
    for found in verdict.consequences:
        mark = "[red]breaks[/red]" if found.breaks else "[dim]fine[/dim]  "
        where = f"{found.path}: " if found.path else ""
        console.print(f"  {mark} {found.effect.value:<12} {escape(where + found.message)}")
