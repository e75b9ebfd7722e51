"""What a fleet leaves in its folder: `fleet.json` for other shells, a lock that tells whether it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from devstack.sole_owner import is_owned, replace, sole_owner
from ingestcore.fleet.layout import Layout

LOCK_WAIT_SECONDS = 2.0
"""The processes of a supervisor that was killed end within this time."""


class Phase(StrEnum):
    """Of one service process. `waiting`: it runs, and something it needs is away. `failed`: only an operator can
    mend it; `stopped`: an operator asked for it."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Row:
    """One service process, as `status` shows it. started_at: Unix seconds; 0 where there is no process."""

    service: str
    sink: str
    replica: str
    pid: int
    state: Phase
    started_at: float
    restarts: int
    reason: str = ""
    admin_port: int = 0


@dataclass
class Record:
    """Contents of `fleet.json`.

    environment  variables that reach the fleet's servers (endpoints, keys of the embedded S3)
    admin_url    where health and metrics of all processes are served together
    control_key  hex; whoever can read this file may stop the fleet
    """

    state: str = "stopped"
    supervisor_pid: int = 0
    control_port: int = 0
    control_key: str = ""
    admin_url: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    services: list[dict[str, Any]] = field(default_factory=list)

    def rows(self) -> list[Row]:
        return [Row(**{**row, "state": Phase(row["state"])}) for row in self.services]


class FleetError(Exception):
    """The fleet can't do what was asked. The message says why and what to do."""


class AlreadyRunning(FleetError):
    """Another supervisor owns the folder."""


def read_record(layout: Layout) -> Record:
    """-> the record, an empty one where there is none or it can't be read."""
    try:
        return Record(**json.loads(layout.record.read_text()))
    except (OSError, ValueError, TypeError):
        return Record()


def write_record(layout: Layout, record: Record) -> None:
    """Replace `fleet.json` in one step, readable by its owner only. Raises OSError, and then it is as it was."""
    replace(layout.record, json.dumps(asdict(record), indent=2) + "\n")


def fleet_lock(layout: Layout) -> AbstractContextManager[None]:
    """Be the only supervisor of a folder; the system frees the lock at our death. Raises AlreadyRunning, OSError."""

    def refuse(waited_seconds: float) -> None:
        if waited_seconds > LOCK_WAIT_SECONDS:
            record = read_record(layout)
            raise AlreadyRunning(
                f"a fleet is {record.state} already in {layout.folder} (supervisor process "
                f"{record.supervisor_pid}): `ingest status` shows it, `ingest down` stops it, --dir takes another "
                f"folder for a second one"
            )

    return sole_owner(layout.lock, refuse)


def is_supervised(layout: Layout) -> bool:
    """Whether a supervisor lives for this folder."""
    return is_owned(layout.lock)


def environment_of(layout: Layout) -> Mapping[str, str] | None:
    """-> variables that reach the servers of the fleet that runs in a folder; None: none runs."""
    return read_record(layout).environment if is_supervised(layout) else None
