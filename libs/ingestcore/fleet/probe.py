"""Is a service process ready? Its run file says where it listens, `/health/ready` says the rest."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ingestcore.fleet.calls import Silent, call

PROBE_TIMEOUT_SECONDS = 1.0
PROBE_INTERVAL_SECONDS = 0.25
READY_INTERVAL_SECONDS = 1.0
"""A look costs the process about two milliseconds of CPU: one that is well is asked less often."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a process says of itself. port 0: it has not said anything yet."""

    pid: int = 0
    port: int = 0
    ready: bool = False
    reason: str = ""


def probe(run_file: Path, pid: int) -> Health:
    """-> health of the process; not ready where it does not answer."""
    try:
        stated = json.loads(run_file.read_text())
        port = int(stated["port"])
        if int(stated["pid"]) != pid:
            return Health(pid)  # left by an earlier process
    except (OSError, ValueError, KeyError, TypeError):
        return Health(pid)
    try:
        ready = call(port, "/health/ready", PROBE_TIMEOUT_SECONDS)
        if ready.status == 200:
            return Health(pid, port, True)
        detailed = call(port, "/health/detailed", PROBE_TIMEOUT_SECONDS).told()
        reason = detailed.get("reason") or ready.told().get("status") or f"status {ready.status}"
        return Health(pid, port, False, str(reason))
    except Silent:
        return Health(pid, port, False, "its health port does not answer")


class Prober:
    """Probes all processes in turn from a thread, so that a frozen one holds up nobody."""

    def __init__(self, targets: Callable[[], Iterable[tuple[Path, int]]]) -> None:
        """`targets`: run file and pid of each process alive; called from the thread."""
        self._targets = targets
        self._health: dict[int, Health] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._thread.start()

    def of(self, pid: int) -> Health:
        """-> the last word of a process."""
        return self._health.get(pid, Health(pid))

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        asked_at: dict[int, float] = {}
        while not self._stop.wait(PROBE_INTERVAL_SECONDS):
            now, health = time.monotonic(), dict[int, Health]()
            for run_file, pid in self._targets():
                known = self._health.get(pid)
                if known is None or not known.ready or now - asked_at[pid] >= READY_INTERVAL_SECONDS:
                    asked_at[pid], known = now, probe(run_file, pid)
                health[pid] = known
            self._health = health
