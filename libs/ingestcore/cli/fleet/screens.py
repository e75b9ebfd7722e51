"""How `ingest up` shows itself: a live table on a terminal, plain lines elsewhere, JSON lines to a waiting parent."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from ingestcore.cli.console import err
from ingestcore.cli.fleet.status import status_table, without_lag
from ingestcore.fleet.record import Row

REFRESH_SECONDS = 1.0


class Lines:
    """Plain lines on stderr."""

    def __init__(self, at_ready: Callable[[], Sequence[str]]) -> None:
        """at_ready: what to tell once everything is ready."""
        self._console = err()
        self._at_ready = at_ready

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def progress(self, text: str) -> None:
        self._say(f"[cyan]==>[/cyan] {escape(text)}")

    def news(self, text: str) -> None:
        self._say(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {escape(text)}")

    def ready(self, rows: Sequence[Row]) -> None:
        for line in self._at_ready():
            self._say(escape(line))

    def tick(self, rows: Sequence[Row]) -> None:
        pass

    def _say(self, text: str) -> None:
        # Into a file, where a detached fleet writes: a full disk must not end it.
        with contextlib.suppress(OSError):
            self._console.print(text)


class LiveTable(Lines):
    """On a terminal: news scroll above a table that is redrawn every second."""

    def __init__(self, at_ready: Callable[[], Sequence[str]]) -> None:
        super().__init__(at_ready)
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._drawn = 0.0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def tick(self, rows: Sequence[Row]) -> None:
        now = time.monotonic()
        if now - self._drawn < REFRESH_SECONDS:
            return
        self._drawn = now
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(status_table(without_lag(rows), with_lag=False), refresh=True)


class Handshake:
    """Of a detached supervisor: JSON lines on stdout until ready, then news to its log on stderr.

    `{"progress": text}`, `{"ready": true}`, `{"error": text, "code": n}`.
    """

    def __init__(self) -> None:
        self._waiting = True

    def progress(self, text: str) -> None:
        self._tell({"progress": text})
        self._note(text)

    def news(self, text: str) -> None:
        self._tell({"progress": text})
        self._note(text)

    def ready(self, rows: Sequence[Row]) -> None:
        self._tell({"ready": True})
        self._waiting = False
        self._note(f"{len(rows)} processes ready")

    def tick(self, rows: Sequence[Row]) -> None:
        pass

    def failed(self, text: str, code: int) -> None:
        self._note(text)
        self._tell({"error": text, "code": code})

    def _tell(self, message: dict[str, object]) -> None:
        if self._waiting:
            with contextlib.suppress(OSError):  # the starter went away: nobody's loss
                print(json.dumps(message), flush=True)

    @staticmethod
    def _note(text: str) -> None:
        print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def where_to_look(folder: Path, stack_bin: Path) -> list[str]:
    """-> what an operator can type next."""
    at = "" if folder == Path(".ingest") else f" --dir {folder}"
    lines = [f"ready: `ingest status{at}` from any shell, `ingest down{at}` stops all; logs in {folder / 'logs'}"]
    if stack_bin.is_dir():
        lines.append(f'Kafka and Redis tools: export PATH="{stack_bin}:$PATH"')
    return lines
