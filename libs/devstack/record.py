"""What a stack keeps in its folder: `stack.json` for others to read, a lock that tells whether it runs."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from devstack.endpoints import Endpoints
from devstack.server import StackError
from devstack.sole_owner import is_owned, replace, sole_owner

RECORD_NAME = "stack.json"
LOCK_NAME = "keeper.lock"
NOTICE_SECONDS = 3.0  # a keeper sees the death of its parent within half a second
STOP_SECONDS = 40.0  # Kafka's grace is 10 s; the rest is for a loaded machine


@dataclass
class Record:
    """The contents of `stack.json`. It stays after a stop: ports are used again at the next start."""

    state: str = "stopped"  # starting, running, stopping, stopped
    keeper_pid: int = 0
    control_port: int = 0  # on 127.0.0.1
    control_key: str = ""  # hex; whoever can read this file may stop the stack
    ports: dict[str, dict[str, int]] = field(default_factory=dict)  # server -> port name -> number
    pids: dict[str, int] = field(default_factory=dict)
    local: dict[str, dict[str, str]] = field(default_factory=dict)  # server -> its endpoint fields
    external: dict[str, dict[str, str]] = field(default_factory=dict)  # the same, taken from the environment
    former: dict[str, dict[str, str]] = field(default_factory=dict)  # `local` of earlier starts

    def endpoints(self) -> Endpoints:
        fields: dict[str, str] = {}
        for part in (*self.local.values(), *self.external.values()):
            fields |= part
        return Endpoints(**fields)


def read_record(folder: Path) -> Record:
    """The record of a folder, an empty one when there is none or it cannot be read."""
    try:
        return Record(**json.loads((folder / RECORD_NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return Record()


def write_record(folder: Path, record: Record) -> None:
    """Replace `stack.json` in one step, readable by its owner only."""
    replace(folder / RECORD_NAME, json.dumps(asdict(record), indent=2) + "\n")


def keeper_lock(folder: Path) -> AbstractContextManager[None]:
    """Be the only keeper of a folder; the system frees the lock at our death.

    Waits for a keeper that is stopping, and a moment for one that has yet to notice that it should.
    Raises StackError when another stack runs there.
    """

    def refuse(waited_seconds: float) -> None:
        record = read_record(folder)
        if waited_seconds > (STOP_SECONDS if record.state == "stopping" else NOTICE_SECONDS):
            raise StackError(
                f"a stack is already {record.state} in {folder} (keeper process {record.keeper_pid}); "
                f"stop it with: python -m devstack down --dir {folder}"
            )

    return sole_owner(folder / LOCK_NAME, refuse)


def has_keeper(folder: Path) -> bool:
    """Whether a keeper lives for this folder."""
    return is_owned(folder / LOCK_NAME)
