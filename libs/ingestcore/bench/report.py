"""Figures of several runs as JSON, as a table and as a chart. Pure, but for writing the files."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table

from ingestcore.bench.chain import SERVERS, ChainRun

_COLOURS: Final = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb", "#777777", "#333333")


@dataclass(frozen=True)
class Series:
    """Runs of the same thing. `name`: what was run."""

    name: str
    runs: Sequence[ChainRun]

    def median(self, figure: Callable[[ChainRun], float]) -> float:
        return statistics.median(figure(run) for run in self.runs)

    def by_service(self) -> dict[str, float]:
        """-> median CPU ms per MB of each service (all its replicas together) and server."""
        names = sorted({_service(label) for run in self.runs for label in run.cpu_ms_per_mb}, key=_place)
        return {name: self.median(lambda run, n=name: _sum(run.cpu_ms_per_mb, n)) for name in names}  # type: ignore[misc]

    def as_dict(self) -> dict[str, Any]:
        walls = [run.mb_per_second for run in self.runs]
        ours = self.median(lambda run: run.ours_ms_per_mb)
        return {
            "name": self.name,
            "runs": len(self.runs),
            "megabytes": self.runs[0].megabytes,
            "rows": self.runs[0].rows,
            "mb_per_second": {"median": statistics.median(walls), "min": min(walls), "max": max(walls)},
            "cpu_ms_per_mb": {"services": ours, **self.by_service()},
            "mb_per_cpu_second": 1e3 / ours,
            "cpu_us_per_row": 1e3 * ours * self.runs[0].megabytes / self.runs[0].rows,
            "peak_rss_mib": {
                label: max(run.peak_rss_mib.get(label, 0) for run in self.runs) for label in self.runs[0].peak_rss_mib
            },
            "most_waiting": {
                group: max(run.most_waiting[group] for run in self.runs) for group in self.runs[0].most_waiting
            },
        }


def cores_for(mb_per_second: float) -> Callable[[ChainRun], float]:
    """-> cores that services and servers of a run would take at that pace."""
    return lambda run: sum(run.cpu_ms_per_mb.values()) * mb_per_second / 1e3


def write(folder: Path, series: Sequence[Series], duckdb_ms_per_mb: Sequence[float]) -> dict[str, Any]:
    """Write `bench.json` and `bench.svg`. -> what the JSON holds."""
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"series": [one.as_dict() for one in series]}
    if duckdb_ms_per_mb:
        figures["duckdb_cpu_ms_per_mb"] = statistics.median(duckdb_ms_per_mb)
    (folder / "bench.json").write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
    (folder / "bench.svg").write_text(chart({one.name: one.by_service() for one in series}))
    return figures


def show(console: Console, figures: Mapping[str, Any]) -> None:
    """Print what counts of each series, then what each process cost."""
    whole = Table(title="Medians; CPU ms per MB of CSV; memory of the largest service")
    for heading in ("", "MB", "runs", "MB/s", "services", "servers", "ns/row", "MiB"):
        whole.add_column(heading, justify="left" if not heading else "right")
    for one in figures["series"]:
        costs = one["cpu_ms_per_mb"]
        whole.add_row(
            one["name"],
            f"{one['megabytes']:.0f}",
            str(one["runs"]),
            f"{one['mb_per_second']['median']:.1f}",
            f"{costs['services']:.1f}",
            f"{sum(costs.get(server, 0.0) for server in SERVERS):.1f}",
            f"{1e3 * one['cpu_us_per_row']:.0f}",
            f"{max(mib for label, mib in one['peak_rss_mib'].items() if label not in SERVERS):.0f}",
        )
    console.print(whole)
    parts = Table(title="CPU ms per MB by process")
    parts.add_column("")
    for one in figures["series"]:
        parts.add_column(one["name"], justify="right")
    names = dict.fromkeys(n for one in figures["series"] for n in one["cpu_ms_per_mb"] if n != "services")
    for name in names:
        parts.add_row(
            name,
            *(f"{one['cpu_ms_per_mb'][name]:.1f}" if name in one["cpu_ms_per_mb"] else "" for one in figures["series"]),
        )
    console.print(parts)
    if "duckdb_cpu_ms_per_mb" in figures:
        console.print(
            f"DuckDB, csv -> distinct -> Parquet of the first file: {figures['duckdb_cpu_ms_per_mb']:.1f} CPU ms per MB"
        )


def chart(costs: Mapping[str, Mapping[str, float]]) -> str:
    """-> SVG: one stacked bar a series, CPU ms per MB by service and server."""
    parts = list(dict.fromkeys(name for bars in costs.values() for name in bars))
    colour = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(parts)}
    longest = max(sum(bars.values()) for bars in costs.values())
    scale, left, height = 560 / longest, 190, 28
    drawn = []
    for row, (name, bars) in enumerate(costs.items()):
        x, y = float(left), 20 + row * height
        drawn.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{name}</text>')
        for part, cost in bars.items():
            drawn.append(
                f'<rect x="{x:.1f}" y="{y}" width="{cost * scale:.1f}" height="20" fill="{colour[part]}">'
                f"<title>{part}: {cost:.1f}</title></rect>"
            )
            x += cost * scale
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + 15}">{sum(bars.values()):.1f}</text>')
    bottom = 20 + len(costs) * height + 10
    for i, part in enumerate(parts):
        x, y = left + (i % 4) * 150, bottom + (i // 4) * 20
        drawn.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour[part]}"/>')
        drawn.append(f'<text x="{x + 18}" y="{y + 11}">{part}</text>')
    whole = bottom + (len(parts) // 4 + 1) * 20 + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="820" height="{whole}" font-family="sans-serif" '
        f'font-size="12"><text x="{left}" y="12">CPU ms per MB of CSV, services and servers</text>'
        f"{''.join(drawn)}</svg>\n"
    )


def _service(label: str) -> str:
    return label if label in SERVERS else label.rpartition("-")[0]


def _place(name: str) -> tuple[int, int]:
    order = ("s3-lister", "chunk-downloader", "csv-parser", "normalizer", "lake", "dlq", *SERVERS)
    return (order.index(name), 0) if name in order else (0, 1)


def _sum(costs: Mapping[str, float], service: str) -> float:
    return sum(cost for label, cost in costs.items() if _service(label) == service)
