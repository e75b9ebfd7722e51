"""The loop over all processes of a fleet: keep the wanted ones running, answer other shells, drain at the end."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from devstack.channel import Answer
from ingestcore.fleet.control import Errand, Listening
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.probe import Prober
from ingestcore.fleet.process import Supervised
from ingestcore.fleet.record import FleetError, Phase, Record, Row, write_record
from ingestcore.fleet.wanted import Wanted, not_known

TICK_SECONDS = 0.1
FOLLOW_SECONDS = 0.5
READY_TIMEOUT_SECONDS = 120.0
_START_DRAINED = "INGEST_START_DRAINED"


class Screen(Protocol):
    """Where a supervisor's words go."""

    def progress(self, text: str) -> None:
        """A step of the start."""

    def news(self, text: str) -> None:
        """Something happened to a process."""

    def ready(self, rows: Sequence[Row]) -> None:
        """Everything wanted is ready; called once."""

    def tick(self, rows: Sequence[Row]) -> None:
        """Several times a second."""


class StartFailed(FleetError):
    """The fleet did not come up. `configuration`: an operator has to mend something first."""

    def __init__(self, message: str, *, configuration: bool) -> None:
        super().__init__(message)
        self.configuration = configuration


class Supervisor:
    """Owns the processes. All of it runs in the thread that calls `run`; `stop` may come from a signal handler."""

    def __init__(
        self,
        layout: Layout,
        *,
        wanted: Callable[[], Iterable[Wanted]],
        command: Callable[[Wanted], Sequence[str]],
        environment: Mapping[str, str],
        endpoints: Mapping[str, str],
        screen: Screen,
        kill_after_seconds: float,
        ready_timeout_seconds: float = READY_TIMEOUT_SECONDS,
    ) -> None:
        """wanted: the processes that should exist now, asked again and again. environment: of the processes.
        endpoints: variables for other shells. kill_after_seconds: how long a process may take to drain."""
        self.snapshot: Sequence[Row] = ()
        """The processes as of the last tick; may be read from any thread."""
        self._layout, self._wanted, self._command = layout, wanted, command
        self._environment = {_START_DRAINED: "false", **environment}
        self._screen = screen
        self._kill_after_seconds = kill_after_seconds
        self._ready_timeout_seconds = ready_timeout_seconds
        self._processes: dict[str, Supervised] = {}
        self._leaving: dict[str, Supervised] = {}
        self._listening = Listening()
        self._prober = Prober(self._probe_targets)
        self._pending: list[tuple[Errand, list[Supervised], Phase]] = []
        self._record = Record(
            "starting", os.getpid(), self._listening.port, self._listening.key, environment=dict(endpoints)
        )
        self._stops = 0
        self._follow_clock = 0.0
        self._was_ready = False
        self._unsaved = ""

    def stop(self) -> None:
        """Drain and end; the second call kills."""
        self._stops += 1

    def run(self) -> None:
        """Start everything, watch until `stop`. Raises StartFailed: something never became ready; all is stopped."""
        deadline = time.monotonic() + self._ready_timeout_seconds
        try:
            while not self._stops:
                self._follow()
                self._tick()
                if not self._was_ready:
                    self._look_whether_ready(deadline)
                self._take_errand()
        finally:
            self._drain()

    def begin_drained(self, drained: bool) -> None:
        """Whether processes that are started from now on, also those that crash, take input. From any thread."""
        self._environment[_START_DRAINED] = "true" if drained else "false"

    def is_served_at(self, url: str) -> None:
        """Tell other shells where health and metrics of all processes are."""
        self._record.admin_url = url

    def rows(self) -> list[Row]:
        return [process.row() for process in (*self._processes.values(), *self._leaving.values())]

    def _follow(self) -> None:
        """Start what is newly wanted, stop what no longer is."""
        if time.monotonic() < self._follow_clock:
            return
        self._follow_clock = time.monotonic() + FOLLOW_SECONDS
        wanted = {item.label: item for item in self._wanted()}
        for label, item in wanted.items():
            if label not in self._processes and label not in self._leaving:
                self._processes[label] = Supervised(item, self._layout, self._command(item), self._environment)
                self._processes[label].start()
        for label in [label for label in self._processes if label not in wanted]:
            self._screen.news(f"{label} is no longer in the configuration")
            self._leaving[label] = self._processes.pop(label)
            self._leaving[label].stop(self._kill_after_seconds)

    def _tick(self) -> None:
        for process in (*self._processes.values(), *self._leaving.values()):
            for text in process.tick(self._prober.of(process.pid)):
                self._screen.news(text)
        for label in [label for label, process in self._leaving.items() if not process.pid]:
            del self._leaving[label]
        self._answer_pending()
        rows = self.snapshot = self.rows()
        self._screen.tick(rows)
        self._write(rows)

    def _write(self, rows: Sequence[Row]) -> None:
        services = [asdict(row) for row in rows]
        if services != self._record.services or self._unsaved:
            self._record.services = services
            self._save()

    def _save(self) -> None:
        """A disk that is full for a while must not end the fleet; the next change writes the record again."""
        try:
            write_record(self._layout, self._record)
            self._unsaved = ""
        except OSError as error:
            said = f"{self._layout.record} can't be written: {error.strerror}"
            if said != self._unsaved:
                self._screen.news(said)
            self._unsaved = said

    def _look_whether_ready(self, deadline: float) -> None:
        processes = self._processes.values()
        failed = [process for process in processes if process.phase is Phase.FAILED]
        if failed:
            text = "\n".join(f"{process.wanted.label}: {process.reason}" for process in failed)
            raise StartFailed(text, configuration=True)
        if all(process.phase in (Phase.READY, Phase.STOPPED) for process in processes):
            self._was_ready = True
            self._record.state = "running"
            self._save()
            self._screen.ready(self.rows())
        elif time.monotonic() > deadline:
            late = [f"{p.wanted.label} ({p.reason or p.phase}; log: {p.log})" for p in processes if not p.health.ready]
            raise StartFailed(
                f"not ready after {self._ready_timeout_seconds:g} s: {', '.join(late)}", configuration=False
            )

    def _take_errand(self) -> None:
        """Wait for a request or the next tick."""
        try:
            errand = self._listening.errands.get(timeout=TICK_SECONDS)
        except queue.Empty:
            return
        answer = self._do(errand)
        if answer is not None:
            errand.answer.set_result(answer)

    def _do(self, errand: Errand) -> Answer | None:
        """-> the answer; None: it comes when it is done."""
        if self._record.state == "stopping":
            return {"error": "the fleet is stopping"}
        match errand.request:
            case {"do": "status"}:
                services = [asdict(row) for row in self.rows()]
                return {"state": self._record.state, "services": services}
            case {"do": "down"}:
                self._stops += 1
                return {"done": "down"}
            case {"do": "stop" | "start" as what, "names": list(names)}:
                return self._stop_or_start(errand, what, [str(name) for name in names])
        return {"error": f"the supervisor does not know the request {errand.request}: another version of `ingest`?"}

    def _stop_or_start(self, errand: Errand, what: str, names: Sequence[str]) -> Answer | None:
        chosen: dict[str, Supervised] = {}
        for name in names:
            found = {label: p for label, p in self._processes.items() if p.wanted.is_called(name)}
            if not found:
                known = {part for p in self._processes.values() for part in (p.wanted.service, p.wanted.instance)}
                return {"error": not_known(name, known)}
            chosen |= found
        if not names:
            chosen = dict(self._processes)
        for process in chosen.values():
            if what == "stop":
                process.stop(self._kill_after_seconds)
            else:
                process.start_anew()
        self._pending.append((errand, list(chosen.values()), Phase.STOPPED if what == "stop" else Phase.READY))
        return None

    def _answer_pending(self) -> None:
        still_pending = []
        for errand, processes, goal in self._pending:
            ends = (goal, Phase.FAILED, Phase.STOPPED) if goal is Phase.READY else (goal,)
            if all(process.phase in ends for process in processes):
                errand.answer.set_result({"services": [asdict(process.row()) for process in processes]})
            else:
                still_pending.append((errand, processes, goal))
        self._pending = still_pending

    def _drain(self) -> None:
        """Stop every process side by side, wait for all."""
        self._record.state = "stopping"
        self._processes, self._leaving = {**self._leaving, **self._processes}, {}
        for process in self._processes.values():
            process.stop(self._kill_after_seconds)
        asked = self._stops
        while any(process.pid for process in self._processes.values()):
            if self._stops > max(asked, 1):
                for process in self._processes.values():
                    process.kill()
            self._tick()
            self._take_errand()
        self._prober.stop()
        self._record.state, self._record.control_port = "stopped", 0
        self._record.services = [asdict(row) for row in self.rows()]
        self._save()

    def _probe_targets(self) -> list[tuple[Path, int]]:
        return [(process.run_file, process.pid) for process in list(self._processes.values()) if process.pid]
