"""Files of a fleet: what lies where below its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """`folder` is absolute; default `.ingest` of the working directory.

    fleet.json      who runs, endpoints included; readable by its owner only
    logs/ run/      one log and one run file (pid, admin port) per service process
    state/ stack/   the services' local state; the embedded servers
    """

    folder: Path

    @classmethod
    def of(cls, folder: Path) -> Layout:
        return cls(folder.expanduser().absolute())

    @property
    def record(self) -> Path:
        return self.folder / "fleet.json"

    @property
    def lock(self) -> Path:
        return self.folder / "fleet.lock"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def supervisor_log(self) -> Path:
        return self.logs / "supervisor.log"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def stack(self) -> Path:
        return self.folder / "stack"

    def make(self) -> None:
        """Create the folders. Raises OSError."""
        for folder in (self.logs, self.run, self.state):
            folder.mkdir(parents=True, exist_ok=True)
