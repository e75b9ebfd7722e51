"""`ingest status`: one row per service process."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ingestcore.cli.console import UNKNOWN, AsJson, duration, err, mib, out, print_json, print_table, table
from ingestcore.cli.target import DEFAULT_FOLDER, Folder, listens, platform
from ingestcore.fleet.calls import answer
from ingestcore.fleet.control import NotRunning, ask
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.merging import Said, adapters
from ingestcore.fleet.record import Phase, Row, is_supervised, read_record
from ingestcore.settings import Platform

_LOOK_SECONDS = 2.0

COLOURS = {
    Phase.READY: "green",
    Phase.STARTING: "cyan",
    Phase.WAITING: "yellow",
    Phase.RESTARTING: "yellow",
    Phase.STOPPING: "cyan",
    Phase.STOPPED: "dim",
    Phase.FAILED: "red",
}


@dataclass(frozen=True)
class Shown:
    """A row with what only the machine and Kafka know. lag: offsets the group is behind; None: unknown or a source."""

    row: Row
    uptime_seconds: float | None
    rss_bytes: int | None
    group: str | None
    lag: int | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "service": self.row.service,
            "sink": self.row.sink or None,
            "replica": self.row.replica,
            "pid": self.row.pid or None,
            "state": self.row.state.value,
            "reason": self.row.reason,
            "uptime_seconds": None if self.uptime_seconds is None else round(self.uptime_seconds, 1),
            "restarts": self.row.restarts,
            "rss_bytes": self.rss_bytes,
            "admin_port": self.row.admin_port or None,
            "group": self.group,
            "lag": self.lag,
        }


def status(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Show every service process: PID, state, uptime, restarts, memory, and how far its group is behind.

    Works from any shell. Below the services stand the sources: what their last listing found, and keys that no
    `route` pattern matches.

    Examples:

      ingest status

      ingest status --json | jq '.services[] | {service, lag}'
    """
    layout = Layout.of(folder)
    state, rows = _rows(layout)
    lags: dict[str, int | None] = {}
    groups: dict[str, tuple[str, str]] = {}
    problem = ""
    if rows and is_supervised(layout):
        target = platform(folder)
        groups = {row.sink or row.service: found for row in rows if (found := _group(row, target))}
        lags, problem = _lags(target, groups)
    shown = [_shown(row, groups, lags) for row in rows]
    url = read_record(layout).admin_url if state != "stopped" else ""
    if as_json:
        services = [item.as_dict() for item in shown]
        told = {"folder": str(layout.folder), "state": state, "services": services, "problem": problem or None}
        print_json(told | {"sources": sources_of(rows), "url": url or None})
        return
    out().print(escape(f"{state} in {layout.folder}" + (f", health and metrics at {url}" if url else "")))
    if shown and state != "stopped":
        print_table(status_table(shown))
        if sources := sources_of(rows):
            print_table(sources_table(sources))
    if problem:
        err().print(escape(f"lag unknown: {problem}"))


def status_table(shown: Sequence[Shown], *, with_lag: bool = True) -> Table:
    numbers = ("PID", "UPTIME", "RESTARTS", "RSS", "LAG")
    columns = ("SERVICE", "SINK", "REPLICA", *numbers[:1], "STATE", *numbers[1 : 5 if with_lag else 4])
    made = table(*columns, right=numbers)
    for item in shown:
        row = item.row
        reason = f" [dim]{escape(row.reason)}[/dim]" if row.reason else ""
        cells = [
            row.service,
            row.sink or UNKNOWN,
            row.replica,
            str(row.pid or UNKNOWN),
            f"[{COLOURS[row.state]}]{row.state.value}[/{COLOURS[row.state]}]{reason}",
            duration(item.uptime_seconds),
            str(row.restarts),
            mib(item.rss_bytes),
        ]
        made.add_row(*cells, *([UNKNOWN if item.lag is None else f"{item.lag:,}"] if with_lag else []))
    return made


def sources_of(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """-> what the services say of each source; of replicas of its lister, what the one that acts says."""
    replies = [(row, answer(row.admin_port, "/health/detailed", _LOOK_SECONDS)) for row in rows]
    return adapters(Said(row, None if reply is None else reply.told()) for row, reply in replies)


def sources_table(sources: Mapping[str, Mapping[str, Any]]) -> Table:
    made = table(
        "SOURCE", "LAST LISTING", "KEYS", "FOUND", "UNMATCHED", "EXAMPLES", "WAITS FOR", right=("KEYS", "FOUND")
    )
    for name, told in sorted(sources.items()):
        waits = told.get("waiting_for") or told.get("waiting") or UNKNOWN
        examples = ", ".join(told.get("unmatched_examples", ())[:3]) or UNKNOWN
        numbers = [str(told.get(key, UNKNOWN)) for key in ("objects_listed", "objects_found_total", "unmatched")]
        made.add_row(name, str(told.get("last_scan") or UNKNOWN), *numbers, escape(examples), escape(str(waits)))
    return made


def without_lag(rows: Sequence[Row]) -> list[Shown]:
    """-> what this machine knows by itself."""
    return [_shown(row, {}, {}) for row in rows]


def _rows(layout: Layout) -> tuple[str, list[Row]]:
    """-> state of the fleet and its rows; of the last run where none runs."""
    try:
        answer = ask(layout, {"do": "status"})
    except NotRunning:
        record = read_record(layout)
        state = record.state if is_supervised(layout) else "stopped"
        return state, record.rows() if state != "stopped" else []
    return answer["state"], [Row(**{**row, "state": Phase(row["state"])}) for row in answer["services"]]


def _shown(row: Row, groups: Mapping[str, tuple[str, str]], lags: Mapping[str, int | None]) -> Shown:
    name = row.sink or row.service
    group = groups[name][0] if name in groups else None
    uptime = max(0.0, time.time() - row.started_at) if row.pid else None
    return Shown(row, uptime, rss_bytes(row.pid) if row.pid else None, group, lags.get(name))


def _group(row: Row, target: Platform) -> tuple[str, str] | None:
    """-> consumer group and the logical topic it reads; None: a source."""
    from ingestcore.runtime.service import discover

    # Of two that share a process the first one reads a topic.
    outer = row.service.partition("+")[0]
    service = discover().get(outer)
    if service is None or service.consumes is None:
        return None
    return target.group(row.sink or outer), service.consumes


def _lags(target: Platform, groups: Mapping[str, tuple[str, str]]) -> tuple[dict[str, int | None], str]:
    """-> lag by instance, and why it is unknown."""
    from ingestcore.kafka import admin, config_topic
    from ingestcore.stage import OperatorNeeded, Retriable

    found: dict[str, int | None] = {}
    if not listens(target.kafka_bootstrap):
        return found, f"Kafka does not answer at {target.kafka_bootstrap}"
    try:
        sinks = config_topic.read(target).sinks()
        for name, (group, topic) in groups.items():
            found[name] = admin.group_lag(target, group, sinks[name].from_ if name in sinks else topic)
    except (Retriable, OperatorNeeded, ValueError) as error:
        return found, str(error)
    return found, ""


def rss_bytes(pid: int) -> int | None:
    """-> resident memory of a process; None: gone, or not to be found out."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
    except FileNotFoundError:
        pass
    except OSError:
        return None
    try:
        done = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return int(done.stdout) << 10 if done.stdout.strip().isdigit() else None
