"""`python -m connectors.bench.sample_data s3://bucket/key.csv --gib 20`: the synthetic CSV of the benchmark."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated
from urllib.parse import urlparse

import typer

from ingestcore.stores.s3 import open_store
from ingestcore.testing.generate import Kind, generate

EXIT_USAGE = 2


def main(
    uri: Annotated[str, typer.Argument(help="Where to, s3://bucket/key.csv.")],
    gib: Annotated[float, typer.Option(help="Size in GiB.")] = 20,
    kind: Kind = Kind.NARROW,
    seed: int = 0,
) -> None:
    """Write a CSV with known repeats and bad rows, and put it into S3 (S3_ENDPOINT_URL and AWS variables)."""
    place = urlparse(uri)
    if place.scheme != "s3" or not place.netloc or not place.path.strip("/"):
        typer.echo(f"{uri} is no s3://bucket/key", err=True)
        raise typer.Exit(EXIT_USAGE)
    store = open_store(endpoint_url=os.environ.get("S3_ENDPOINT_URL"), region=os.environ.get("AWS_REGION"))
    with tempfile.TemporaryDirectory(prefix="ingest-sample-") as temporary:
        truth = generate(Path(temporary) / "sample.csv", megabytes=gib * 2**30 / 1e6, kind=kind, seed=seed)
        store.put_new(place.netloc, place.path.lstrip("/"), truth.path)
    typer.echo(
        f"{uri}: {truth.nbytes:,} bytes, {truth.rows:,} rows: {truth.fresh:,} distinct, {truth.duplicates:,} repeats, "
        f"{len(truth.bad):,} bad"
    )


if __name__ == "__main__":
    typer.run(main)
