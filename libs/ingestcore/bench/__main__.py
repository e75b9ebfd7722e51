"""`python -m ingestcore.bench`: what the whole chain costs on this machine."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import devstack
from ingestcore.bench import report
from ingestcore.bench.cases import Case, Input, make_input
from ingestcore.bench.chain import ChainRun, run_chain
from ingestcore.bench.duck import run_duckdb

COMPOSED = "chunk-downloader+csv-parser"


def main(
    megabytes: Annotated[float, typer.Option(help="Size of the typical file, in MB.")] = 500,
    runs: Annotated[int, typer.Option(min=1, help="Runs of the typical file; medians are shown.")] = 5,
    workers: Annotated[int, typer.Option(min=1, help="Replicas of each stage in the run that scales.")] = 4,
    others: Annotated[
        float, typer.Option(help="Size of the files of the other cases, in MB; 0: leave them out.")
    ] = 100,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE[,NAME=VALUE]",
            help="One more series of the typical file, with these settings; repeat it. Nothing else is measured then.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="bench.json and bench.svg go here.")] = Path(
        "bench-report"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON instead of the table.")] = False,
) -> None:
    """Measure the whole chain on real Kafka, S3 and Redis: CPU of every process, wall time, memory, backlog.

    Each run is a fresh fleet with everything on (SHA-256 keys, provenance, ledger, zstd) and is checked for
    completeness. Wall times need a quiet machine; CPU per MB is what to compare.

    Examples:

      python -m ingestcore.bench

      python -m ingestcore.bench --megabytes 1000 --runs 1 --others 0

      python -m ingestcore.bench --runs 3 --vary INGEST_COMMIT_SECONDS=0.1s --vary INGEST_COMMIT_SECONDS=2s
    """
    changes = {text: _settings(text) for text in vary or ()}
    console = Console(stderr=True)
    number = itertools.count()
    with tempfile.TemporaryDirectory(prefix="ingest-bench-") as temporary:
        folder = Path(temporary)
        typical = make_input(Case.TYPICAL, folder, megabytes)
        with devstack.start(folder / "stack") as stack:

            def measured(
                name: str,
                input: Input,
                times: int,
                workers: int = 1,
                *options: str,
                environ: Mapping[str, str] | None = None,
            ) -> report.Series:
                found: list[ChainRun] = []
                for run in range(times):
                    name_ = f"bench{next(number)}"
                    found.append(
                        run_chain(folder, stack, name_, input, workers=workers, options=options, environ=environ)
                    )
                    console.print(
                        f"{name}: run {run + 1} of {times}, {input.nbytes / 1e6:.0f} MB: "
                        f"{found[-1].mb_per_second:.1f} MB/s, {found[-1].ours_ms_per_mb:.1f} ms/MB of services"
                    )
                return report.Series(name, found)

            # The broker is a Java process: its first run also compiles it.
            measured("warm-up", typical, 1)
            series: list[report.Series] = []
            duck: list[float] = []

            def keep(measured: report.Series) -> None:
                """What is measured is written at once: a run that fails later does not take it along."""
                series.append(measured)
                report.write(out, series, duck)

            keep(measured("typical", typical, runs))
            duck += [run_duckdb(typical, folder / "duck.parquet").cpu_ms_per_mb for _ in range(runs)]
            for text, settings in changes.items():
                keep(measured(text, typical, runs, environ=settings))
            if not changes:
                if workers > 1:
                    keep(measured(f"{workers} workers", typical, runs, workers))
                keep(measured("composed", typical, runs, 1, "--compose", COMPOSED))
                for case in Case if others else ():
                    if case is not Case.TYPICAL:
                        keep(measured(case.value, make_input(case, folder, others), 1))
        figures = report.write(out, series, duck)
    if as_json:
        typer.echo((out / "bench.json").read_text())
    else:
        report.show(Console(), figures)
        typer.echo(f"{out / 'bench.json'} and {out / 'bench.svg'} hold the figures")


def _settings(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.isidentifier() and is_ for name, is_, _ in pairs):
        raise typer.BadParameter(f"{text!r}: NAME=VALUE, several with commas", param_hint="--vary")
    return {name: value for name, _, value in pairs}


if __name__ == "__main__":
    typer.run(main)
