"""`ingest preview`: what the platform would make of one file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ingestcore.cli.config.files import service_settings
from ingestcore.cli.console import AsJson
from ingestcore.cli.errors import EXIT_CONFIGURATION, EXIT_FAILED, OperatorError
from ingestcore.cli.inputs import S3, File, one_file, split_uri
from ingestcore.cli.target import DEFAULT_FOLDER, Folder
from ingestcore.datasets.checks import targets
from ingestcore.datasets.config_file import Config, load
from ingestcore.datasets.problems import nearest
from ingestcore.datasets.secrets import resolve_spec
from ingestcore.datasets.spec import DatasetSpec, S3Source, SourceSpec, parse_size
from ingestcore.settings import Platform

if TYPE_CHECKING:
    from ingestcore.tabular.rehearsal import Rehearsal, Repeat


def preview(
    file: Annotated[str, typer.Argument(metavar="FILE | s3://BUCKET/KEY", help="One file, plain or gzip.")],
    config: Annotated[
        list[Path] | None, typer.Option("--config", metavar="CONFIG", help="Configuration; repeatable.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="NAME", help="Which of the configuration's; else as routed.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", metavar="N", min=0, help="Rows shown, and refused ones.")] = 10,
    most: Annotated[
        str, typer.Option("--bytes", metavar="SIZE", help="Read at most so much, inflated; it is held in memory.")
    ] = "64MiB",
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Show what would become of a file: typed rows, refused rows and why, keys that repeat. Needs no Kafka.

    The file goes through the code of the services: header, blocks, types, rules and keys are judged as they would be.
    Without a configuration it is read as a dataset without a spec: the header names the columns, all of them strings.
    Ends with 1 where the whole file would be refused.

    Examples:

      ingest preview zipcodes.csv

      ingest preview s3://lake/raw/orders.csv.gz --config ingest.yaml --rows 20

      ingest preview orders.csv --config ingest.yaml --dataset orders --json | jq '.refused[] | {row, column, value}'
    """
    from ingestcore.cli.config.preview_report import Told, as_dict, show
    from ingestcore.cli.console import print_json

    limit = _size(most)
    found = _dataset(_config(config, file), dataset, file) if config else _without_spec(dataset)
    given = one_file(file, folder, found.place)
    done = _rehearse(given, found.spec, limit)
    told = Told(given, found.name, found.spec, done, _repeats(done, found, given))
    if as_json:
        print_json(as_dict(told, rows))
    else:
        show(told, rows)
    if done.whole_refused:
        raise typer.Exit(EXIT_FAILED)


@dataclass(frozen=True, slots=True)
class _Dataset:
    """tenant, name: part of keys; place: of the source the object is in, with its own server and credentials."""

    tenant: str
    name: str
    spec: DatasetSpec
    place: S3Source | None = None


def _without_spec(asked: str | None) -> _Dataset:
    if asked is not None:
        raise OperatorError(f"--dataset {asked} needs the configuration it is in: --config FILE", EXIT_CONFIGURATION)
    return _Dataset("default", "", DatasetSpec())


def _config(paths: Sequence[Path], file: str) -> Config:
    """-> the configuration; where an object is read, with references in sources resolved.

    Raises ConfigError, SecretMissing.
    """
    config = load(paths, service_settings())
    if not file.startswith(S3):
        return config
    return replace(config, sources={name: resolve_spec(s, os.environ) for name, s in config.sources.items()})


def _dataset(config: Config, asked: str | None, file: str) -> _Dataset:
    """-> the dataset that was named, else the one the file is routed to, else the only one there is."""
    if asked is None:
        asked = _routed(config, file)
    spec = config.datasets.get(asked)
    if spec is None:
        # A dataset that a route names and nobody declares is made: every column, as strings.
        if asked in {name for source in config.sources.values() for name in (source.route or {}).values()}:
            spec = DatasetSpec()
        else:
            meant = nearest(asked, config.datasets)
            raise OperatorError(
                f"no dataset {asked}: " + (f"{meant}?" if meant else f"one of {', '.join(config.datasets)}"),
                EXIT_CONFIGURATION,
            )
    feeding = [source for name, source in config.sources.items() if asked in targets(name, source)]
    home = next((source for source in feeding if _holds(source, file)), None)
    tenant = (home or feeding[0]).tenant if feeding else "default"
    return _Dataset(tenant, asked, spec, home.s3 if home else None)


def _holds(source: SourceSpec, file: str) -> bool:
    """Whether an object is in the source's part of its bucket."""
    if not file.startswith(S3) or source.s3 is None:
        return False
    bucket, key = split_uri(file)
    return source.s3.bucket == bucket and key.startswith(source.s3.prefix)


def _routed(config: Config, file: str) -> str:
    reached: list[str] = []
    for name, source in config.sources.items():
        if source.s3 is None or (file.startswith(S3) and not _holds(source, file)):
            continue
        # A local file's place in the bucket is not known: its name decides.
        key = split_uri(file)[1] if file.startswith(S3) else source.s3.prefix + Path(file).name
        found = source.dataset_of(key, name)
        if found is not None:
            reached.append(found)
    if len(set(reached)) == 1:
        return reached[0]
    if not reached and len(config.datasets) == 1:
        return next(iter(config.datasets))
    why = f"it is routed to {', '.join(sorted(set(reached)))}" if reached else "no route leads it to one"
    raise OperatorError(f"which dataset is {file} of? {why}: --dataset NAME", EXIT_CONFIGURATION)


def _rehearse(given: File, spec: DatasetSpec, limit: int) -> Rehearsal:
    from ingestcore.tabular.rehearsal import inflate, is_gzip, rehearse

    stored = given.pieces()
    first = next(stored, b"")
    pieces: Iterator[bytes] = chain([first] if first else [], stored)
    if first and is_gzip(given.key, first):
        pieces = inflate(pieces)
    return rehearse(pieces, spec, max_row_bytes=Platform().max_row_bytes, most=limit)


def _repeats(done: Rehearsal, dataset: _Dataset, given: File) -> list[Repeat]:
    from ingestcore.tabular.keys import Owner
    from ingestcore.tabular.rehearsal import repeats

    owner = Owner(dataset.tenant, dataset.name, (given.uri, given.etag))
    return repeats(done.rows(), done.numbers(), dataset.spec, owner)


def _size(text: str) -> int:
    try:
        return int(parse_size(text))
    except ValueError as error:
        raise OperatorError(f"--bytes: {error}", EXIT_CONFIGURATION) from error
