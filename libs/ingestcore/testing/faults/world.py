"""What faults act on: a fleet, its servers, its load. And what must hold: progress, and no death but ours."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import devstack
from ingestcore.fleet.layout import Layout
from ingestcore.fleet.record import Phase, Row
from ingestcore.stage import Retriable
from ingestcore.testing import lake
from ingestcore.testing.faults.groups import STAGES, Groups, Standing
from ingestcore.testing.faults.load import Load
from ingestcore.testing.faults.s3_proxy import S3Proxy
from ingestcore.testing.faults.state_disk import StateDisk
from ingestcore.testing.fleet import Keys, LocalFleet

T = TypeVar("T")

PROGRESS_SECONDS: Final = 180.0
"""For a group with work to commit again, whatever was done to it."""
_SEND_AGAIN_SECONDS: Final = 2.0
_MOST_SPARES: Final = 5
"""Sent at most for one fault."""
_POLL_SECONDS: Final = 0.2
LISTER: Final = "s3-lister"
SERVICES: Final = (LISTER, *STAGES)


@dataclass
class World:
    """disk: None where none can be mounted. replicas: how many of a service there may be. killed: our kills by label.
    recoveries: kill -> progress in seconds, by label. began_at: Unix seconds, before the first record."""

    fleet: LocalFleet
    stack: devstack.Stack
    proxy: S3Proxy
    load: Load
    disk: StateDisk | None
    replicas: Mapping[str, int]
    say: Callable[[str], None]
    killed: Counter[str] = field(default_factory=Counter)
    recoveries: list[tuple[str, float]] = field(default_factory=list)
    began_at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.groups = Groups(self.fleet.platform())
        # The supervisor's names: a sink's has its service in it.
        rows = self.fleet.processes()
        self._full = {label: f"{row.service}-{label}" if row.sink else label for label, row in rows.items()}

    # -- processes
    def running(self, instance: str) -> list[str]:
        """-> labels of the replicas that are not stopped, in order."""
        rows = self.fleet.processes()
        return sorted(
            label for label, row in rows.items() if instance in (row.sink, row.service) and row.state != Phase.STOPPED
        )

    def kill(self, label: str) -> None:
        """kill -9, as soon as there is a process to be killed."""
        self.patiently(lambda: self._pid(label), f"{label} runs")
        self.fleet.kill(label)
        self.killed[label] += 1

    def _pid(self, label: str) -> bool:
        return self.fleet.processes()[label].pid != 0

    # -- load
    def busy(self, instance: str) -> None:
        """Send small objects until a service has unfinished input. Says so where it never has."""
        for _ in range(_MOST_SPARES):
            deadline = time.monotonic() + _SEND_AGAIN_SECONDS
            while time.monotonic() < deadline:
                if not self.standing(instance).idle:
                    return
                time.sleep(_POLL_SECONDS / 4)
            if not self.load.send_spare(self.fleet):
                break
        self.say(f"    {instance} was idle")

    # -- progress
    def standing(self, instance: str) -> Standing:
        return self.patiently(lambda: self.groups.standing(instance), f"Kafka says where {instance} stands")

    def standings(self) -> dict[str, Standing]:
        return {instance: self.standing(instance) for instance in STAGES}

    def await_progress(self, before: Mapping[str, Standing]) -> float:
        """Wait until every group has committed since or has nothing to do. -> seconds."""
        began = time.monotonic()
        for instance, standing in before.items():
            self.patiently(
                lambda i=instance, s=standing: self.groups.standing(i).moved_since(s),  # type: ignore[misc]
                f"{instance} makes progress",
            )
        return time.monotonic() - began

    def patiently(self, ask: Callable[[], T], what: str, seconds: float = PROGRESS_SECONDS) -> T:
        """Ask until the answer is true-ish. Raises AssertionError: it is not in time."""
        deadline = time.monotonic() + seconds
        trouble = ""
        while True:
            try:
                answer = ask()
                if answer:
                    return answer
            except Retriable as error:
                trouble = str(error)
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what} {trouble}\n{self.report()}"
            time.sleep(_POLL_SECONDS)

    # -- what must always hold
    def check_whole(self) -> int:
        """See `Load.check`. -> rows that services were given again."""
        # Past the proxy: DuckDB keeps this process's threads from running while it waits, the proxy's among them.
        direct = {**self.fleet.environ(), "S3_ENDPOINT_URL": self.stack.endpoints.s3}
        return self.load.check(self.fleet, lake.connect(Keys.of(direct)))

    def check_deaths(self) -> None:
        """No process ended but by our kills, all drained in time, none needs an operator. Raises AssertionError."""
        ours = Counter({(self._full[label], "SIGKILL"): count for label, count in self.killed.items()})
        self.patiently(lambda: not ours - self._deaths(), "the supervisor notices our kills")
        log, ended = self._log(), self._deaths()
        assert ended == ours, f"deaths that were not ours: {ended - ours}\n{log}"
        for sign in ("did not drain in time", "needs you"):
            assert sign not in log, log

    def _deaths(self) -> Counter[tuple[str, str]]:
        return Counter(re.findall(r"(\S+) ended with (.*?)[:;] ", self._log()))

    def _log(self) -> str:
        return Layout.of(self.fleet.folder).supervisor_log.read_text()

    def report(self) -> str:
        rows: dict[str, Row] = self.fleet.processes()
        lines = [f"{label}: {row.state} {row.reason} (restarts {row.restarts})" for label, row in rows.items()]
        return "\n".join(lines)
