"""Live progress of the demo: rows through each stage, as the services' own metrics tell."""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from collections import defaultdict
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from ingestcore.cli.looking.completeness import Completeness
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.record import read_record

_STAGES = {
    "chunk-downloader": "downloaded",
    "csv-parser": "parsed",
    "normalizer": "deduplicated",
    "lake": "in Parquet",
}
_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 5.0
_SCRAPE_SECONDS = 1.0
_RECORDS = re.compile(r"^ingest_records_total\{.*\} (\S+)$", re.MULTILINE)


class _Rate(ProgressColumn):
    """MB of the file a second, as rows go through."""

    def __init__(self, row_megabytes: float) -> None:
        super().__init__()
        self._row_megabytes = row_megabytes

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed * self._row_megabytes:.0f} MB/s" if task.speed else "")


class Bars:
    """A bar per stage while the demo waits; without a terminal, a line now and then."""

    def __init__(self, console: Console, layout: Layout, rows: int, nbytes: int) -> None:
        columns = (
            TextColumn("    {task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(nbytes / rows / 1e6),
        )
        self._console = console
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bars = {stage: self._progress.add_task(title, total=rows) for stage, title in _STAGES.items()}
        self._layout = layout
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bars", daemon=True)
        self._started = self._told = time.monotonic()
        self.seconds = 0.0
        """From the upload to the last row in Parquet."""

    def looked(self, found: Completeness) -> None:
        """The ledger was read: rows that fell out before a stage will not come to it."""
        for object_audit in found.objects:
            kept = object_audit.read - object_audit.dead - object_audit.blank
            for stage, total in (("normalizer", kept), ("lake", object_audit.published)):
                # Another total starts the rate anew.
                if total > 0 and self._progress.tasks[self._bars[stage]].total != total and not found.open:
                    self._progress.update(self._bars[stage], total=total)
        self.seconds = time.monotonic() - self._started

    def __enter__(self) -> Bars:
        self._progress.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(_SCRAPE_SECONDS * 4)
        self._progress.stop()

    def _run(self) -> None:
        while not self._stop.wait(_REFRESH_SECONDS):
            counted: dict[str, float] = defaultdict(float)
            for row in read_record(self._layout).rows():
                name = row.sink or row.service
                if name in self._bars and row.admin_port:
                    counted[name] += _rows_done(row.admin_port)
            for stage, rows in counted.items():
                self._progress.update(self._bars[stage], completed=int(rows))
            if not self._console.is_terminal and time.monotonic() - self._told > _LINE_SECONDS:
                self._told = time.monotonic()
                self._console.print(
                    "    " + ", ".join(f"{_STAGES[s]} {int(n):,}" for s, n in counted.items()), soft_wrap=True
                )


def _rows_done(port: int) -> float:
    """-> rows a service has decided about; 0 while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_SCRAPE_SECONDS) as answer:
            text = answer.read().decode()
    except OSError:
        return 0
    return sum(map(float, _RECORDS.findall(text)))
