"""Figures of benchmark runs put together, and the files they are measured on."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from pathlib import Path

import orjson
import pytest
from rich.console import Console

from ingestcore.bench.cases import Case, make_input
from ingestcore.bench.chain import ChainRun
from ingestcore.bench.report import Series, chart, cores_for, show, write


def run(wall_seconds: float, parser: tuple[float, ...]) -> ChainRun:
    costs = {f"csv-parser-{n}": cost for n, cost in enumerate(parser)} | {"lake-0": 4.0, "kafka": 12.0}
    return ChainRun(100.0, 1_000_000, wall_seconds, costs, dict.fromkeys(costs, 300.0), {"x-csv-parser": 7})


def test_replicas_of_a_service_count_together_and_servers_are_not_ours() -> None:
    one = Series("two", [run(4.0, (5.0, 6.0)), run(5.0, (6.0, 7.0)), run(2.0, (9.0, 9.0))]).as_dict()
    assert one["mb_per_second"] == {"median": 25.0, "min": 20.0, "max": 50.0}
    assert one["cpu_ms_per_mb"] == {"services": 17.0, "csv-parser": 13.0, "lake": 4.0, "kafka": 12.0}
    assert one["mb_per_cpu_second"] == pytest.approx(1000 / 17)
    assert one["cpu_us_per_row"] == pytest.approx(1.7)
    assert cores_for(50.0)(run(4.0, (5.0, 6.0))) == pytest.approx(1.35)


def test_the_report_is_json_a_chart_and_a_table(tmp_path: Path) -> None:
    series = [Series("typical", [run(4.0, (8.0,))]), Series("4 workers", [run(4.0, (3.0, 3.0, 3.0))])]
    figures = write(tmp_path, series, [8.0, 9.0, 7.0])
    assert orjson.loads((tmp_path / "bench.json").read_bytes()) == figures
    assert figures["duckdb_cpu_ms_per_mb"] == 8.0
    drawn = ET.fromstring((tmp_path / "bench.svg").read_text())
    words = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"typical", "4 workers", "csv-parser", "24.0", "25.0"} <= set(words)
    printed = io.StringIO()
    show(Console(file=printed, width=80), figures)
    assert "typical" in printed.getvalue() and "DuckDB" in printed.getvalue()
    assert chart({"a": {"kafka": 1.0}}).startswith("<svg")


@pytest.mark.parametrize("case", list(Case))
def test_inputs_say_how_many_rows_must_come_out(case: Case, tmp_path: Path) -> None:
    made = make_input(case, tmp_path, 0.5)
    assert made.nbytes == made.path.stat().st_size == pytest.approx(0.5e6, rel=0.1)
    assert made.rows == made.path.read_bytes().count(b"\n") - 1
    assert made.distinct == 1 if case is Case.REPEATED else made.distinct > 0.9 * made.rows
    assert made.dataset.primary_key == ("id",)
