"""One supervised service process: started, watched, started again, stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devstack.process import tied
from ingestcore.fleet.backoff import Backoff
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.probe import Health
from ingestcore.fleet.record import Phase, Row
from ingestcore.fleet.wanted import Wanted
from ingestcore.runtime.process import EXIT_CONFIGURATION, EXIT_STOPPED

LOG_MAX_BYTES = 64 << 20
"""A log longer than this is put aside (`.1`) at the next start."""
NOT_RESTARTED = (EXIT_CONFIGURATION, EXIT_STOPPED)
"""Starting again would end the same way: an operator has to look."""
_NO_NEWS = ("starting", "draining")
"""What a service answers while it does what it was asked."""
_TAIL_BYTES = 16 << 10


@dataclass
class Supervised:
    """`start`, `stop` and `tick` are called from one thread, which must live as long as the process may: Linux ties
    a child's death signal to the thread that made it."""

    wanted: Wanted
    layout: Layout
    command: Sequence[str]
    environment: Mapping[str, str]
    phase: Phase = Phase.STOPPED
    restarts: int = 0
    reason: str = ""
    health: Health = field(default_factory=Health)
    _process: subprocess.Popen[bytes] | None = None
    _backoff: Backoff = field(default_factory=Backoff)
    _started_at: float = 0.0
    _started_clock: float = 0.0
    _restart_clock: float = 0.0
    _kill_clock: float = 0.0
    _start_once_stopped: bool = False

    @property
    def run_file(self) -> Path:
        return self.layout.run / f"{self.wanted.label}.json"

    @property
    def log(self) -> Path:
        return self.layout.logs / f"{self.wanted.label}.log"

    @property
    def pid(self) -> int:
        """0: no process."""
        return self._process.pid if self._process is not None else 0

    def row(self) -> Row:
        started = self._started_at if self.pid else 0.0
        return Row(
            self.wanted.service,
            self.wanted.sink,
            self.wanted.replica,
            self.pid,
            self.phase,
            started,
            self.restarts,
            self.reason,
            self.health.port if self.pid else 0,
        )

    def start(self) -> None:
        """Spawn it, unless it runs."""
        if self._process is not None:
            return
        self.run_file.unlink(missing_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_MAX_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                tied(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.environment, "INGEST_RUN_FILE": str(self.run_file)},
                start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to handle
            )
        self._started_at, self._started_clock = time.time(), time.monotonic()
        self.phase, self.reason, self.health = Phase.STARTING, "", Health()

    def start_anew(self) -> None:
        """Start at an operator's wish: what went before is forgotten."""
        self._backoff = Backoff()
        self._start_once_stopped = self.phase is Phase.STOPPING
        self.start()

    def stop(self, kill_after_seconds: float) -> None:
        """Ask it to drain; `tick` kills it after this long."""
        self._start_once_stopped = False
        if self._process is None:
            self.phase, self.reason = Phase.STOPPED, ""
        elif self.phase is not Phase.STOPPING:
            self.phase, self.reason = Phase.STOPPING, ""
            self._kill_clock = time.monotonic() + kill_after_seconds
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # a frozen process takes SIGTERM only once it runs again

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def tick(self, health: Health) -> Iterator[str]:
        """Take note of what happened and act on it. -> news, as sentences."""
        if self._process is None:
            if self.phase is Phase.RESTARTING and time.monotonic() >= self._restart_clock:
                self.restarts += 1
                self.start()
            return
        code = self._process.poll()
        if code is not None:
            yield from self._ended(code)
        elif self.phase is Phase.STOPPING:
            if time.monotonic() > self._kill_clock:
                self._kill_clock += 1.0
                yield f"{self.wanted.label} did not drain in time: killed"
                self.kill()
        elif health.pid == self.pid:
            yield from self._heard(health)

    def _heard(self, health: Health) -> Iterator[str]:
        self.health = health
        before, told = self.phase, self.reason
        if health.ready:
            self.phase, self.reason = Phase.READY, ""
        elif health.reason and health.reason not in _NO_NEWS:
            self.phase, self.reason = Phase.WAITING, health.reason
        if self.phase is Phase.WAITING and self.reason != told:
            yield f"{self.wanted.label} waits: {self.reason}"
        elif self.phase is Phase.READY and before is not Phase.READY:
            yield f"{self.wanted.label} is ready (process {self.pid})"

    def _ended(self, code: int) -> Iterator[str]:
        ran_seconds = time.monotonic() - self._started_clock
        was_asked = self.phase is Phase.STOPPING
        self._process = None
        self.run_file.unlink(missing_ok=True)
        if was_asked:
            self.phase, self.reason = Phase.STOPPED, ""
            yield f"{self.wanted.label} stopped"
            if self._start_once_stopped:
                self.start()
        elif code in NOT_RESTARTED:
            self.phase, self.reason = Phase.FAILED, self.last_words() or f"exit code {code}"
            yield f"{self.wanted.label} needs you: {self.reason} (then `ingest start {self.wanted.instance}`)"
        else:
            wait_seconds = self._backoff.next_seconds(ran_seconds)
            self._restart_clock = time.monotonic() + wait_seconds
            how = f"exit code {code}" if code >= 0 else _signal_name(-code)
            self.phase, self.reason = Phase.RESTARTING, f"ended with {how}"
            said = self.last_words() if code > 0 else ""
            detail = f": {said}" if said else ""
            yield f"{self.wanted.label} ended with {how}{detail}; started again in {wait_seconds:g} s (log: {self.log})"

    def last_words(self) -> str:
        """-> the reason in the last line of its log, or ""."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        try:
            event = json.loads(last)
            return str(event.get("reason") or event.get("error") or event["event"])
        except (ValueError, KeyError, AttributeError, TypeError):
            return last

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            # PermissionError: macOS answers so for a group that holds only a zombie.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
