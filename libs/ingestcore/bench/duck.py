"""The yardstick: DuckDB reads the same CSV, keeps distinct rows and writes Parquet. No Kafka, no ledger, no rejects."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ingestcore.bench.cases import Input
from ingestcore.datasets.spec import Type

_SQL_TYPES: Final = {
    Type.INTEGER: "BIGINT",
    Type.FLOAT: "DOUBLE",
    Type.TIMESTAMP: "TIMESTAMPTZ",
    Type.STRING: "VARCHAR",
}
_SCRIPT: Final = """
import sys, duckdb
source, columns, target = sys.argv[1:]
duckdb.execute("SET threads = 2; SET enable_progress_bar = false")
duckdb.execute(
    f"COPY (SELECT DISTINCT * FROM read_csv('{source}', header = true, columns = {columns}, ignore_errors = true, "
    f"strict_mode = false)) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
)
"""


@dataclass(frozen=True, slots=True)
class DuckRun:
    """One run of a fresh process."""

    wall_seconds: float
    cpu_ms_per_mb: float


def run_duckdb(input: Input, target: Path) -> DuckRun:
    """Raises subprocess.CalledProcessError."""
    columns = {name: _SQL_TYPES[field.type] for name, field in input.dataset.named.items()}
    before, started = _children_cpu_seconds(), time.monotonic()
    subprocess.run([sys.executable, "-c", _SCRIPT, str(input.path), str(columns), str(target)], check=True)
    spent = _children_cpu_seconds() - before
    target.unlink()
    return DuckRun(time.monotonic() - started, 1e3 * spent / (input.nbytes / 1e6))


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
