"""`python -m connectors.bench.loadgen --workers 4 --target-mbps 200`: does a fleet of so many workers keep up?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import devstack
from ingestcore.bench import report
from ingestcore.bench.cases import Case, make_input
from ingestcore.bench.chain import run_chain

EXIT_TOO_SLOW = 1


def main(
    workers: Annotated[int, typer.Option(min=1, help="Replicas of every stage but the lister.")] = 1,
    target_mbps: Annotated[float, typer.Option(help="MB of CSV a second that must be reached; 0: just measure.")] = 0,
    megabytes: Annotated[float, typer.Option(help="Size of the generated file, in MB.")] = 1000,
    runs: Annotated[int, typer.Option(min=1, help="The median counts.")] = 1,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="bench.json and bench.svg go here.")] = Path(
        "bench-report"
    ),
) -> None:
    """Send a generated file from S3 to Parquet and compare MB/s with a target; exit code 1 when it is missed.

    Kafka, S3 and Redis are those of KAFKA_BOOTSTRAP_SERVERS (or KAFKA_BROKERS), S3_ENDPOINT_URL and REDIS_URL; what is
    not set is started here. MB/s depend on cores: CPU per MB tells how many are needed.
    """
    console = Console()
    with tempfile.TemporaryDirectory(prefix="ingest-loadgen-") as temporary:
        folder = Path(temporary)
        input = make_input(Case.TYPICAL, folder, megabytes)
        with devstack.start(folder / "stack") as stack:
            found = [run_chain(folder, stack, f"load{n}", input, workers=workers) for n in range(runs)]
        series = report.Series(f"{workers} workers", found)
        figures = report.write(out, [series], [])
    report.show(console, figures)
    reached = series.median(lambda run: run.mb_per_second)
    if reached < target_mbps:
        console.print(
            f"[red]{reached:.1f} MB/s, {target_mbps:g} wanted[/]: {series.median(report.cores_for(target_mbps)):.1f} "
            "cores would carry it, servers included"
        )
        raise typer.Exit(EXIT_TOO_SLOW)
    console.print(f"{reached:.1f} MB/s" + (f", {target_mbps:g} wanted" if target_mbps else ""))


if __name__ == "__main__":
    typer.run(main)
