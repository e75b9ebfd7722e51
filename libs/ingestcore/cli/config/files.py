"""Configuration files on the command line: read, or told what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ingestcore.cli.console import err
from ingestcore.datasets.config_file import Config, load
from ingestcore.datasets.problems import Level, Problem
from ingestcore.datasets.service_settings import ServiceSettings

ConfigFiles = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Configuration files, YAML or JSON; several add up.")
]


def service_settings() -> ServiceSettings:
    """-> settings classes by service name."""
    from ingestcore.runtime.service import discover

    return {name: service.settings for name, service in discover().items()}


def read(files: Iterable[Path]) -> Config:
    """-> the configuration; warnings go to stderr. Raises ConfigError."""
    config = load(files, service_settings())
    show(config.warnings)
    return config


def show(problems: Iterable[Problem]) -> None:
    """One line each, on stderr."""
    console = err()
    for problem in problems:
        colour = "red" if problem.level is Level.ERROR else "yellow"
        console.print(f"[{colour}]{problem.level.value:<7}[/{colour}] {escape(str(problem))}")
