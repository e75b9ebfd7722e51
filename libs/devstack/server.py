"""What a server of the stack must tell: its ports, its command, when it is ready, how it is reached.

One file per server implements `Server`; `catalogue.py` lists them. A server object holds no state: all that
belongs to one run comes in a `Place`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

HOST = "127.0.0.1"


class StackError(Exception):
    """The stack cannot do what was asked. The message says what failed and where its log is."""


@dataclass(frozen=True)
class Place:
    """Where one server lives in one run of a stack."""

    folder: Path  # of the whole stack, absolute
    data: Path  # this server's own; exists before `prepare`
    log: Path  # appended to; stdout and stderr of the process
    ports: Mapping[str, int]  # by the names in `Server.ports`
    log_start_bytes: int = 0  # where this run begins in `log`

    def fresh_log(self) -> str:
        """What the process has written since it was started."""
        try:
            with self.log.open("rb") as log:
                log.seek(self.log_start_bytes)
                return log.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""


class Server(Protocol):
    """One kind of server. The keeper calls prepare, command, environment, ready in that order."""

    @property
    def name(self) -> str:
        """Short name, used for folders, logs and on the command line."""

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of all ports it listens on; each gets a free number on 127.0.0.1."""

    @property
    def stop_signal(self) -> int:
        """Asks it to stop."""

    @property
    def grace_seconds(self) -> float:
        """Time between that signal and SIGKILL when the stack stops."""

    def external(self, environ: Mapping[str, str]) -> dict[str, str] | None:
        """Fields of `Endpoints` if the environment names a server to use instead of a local one, else None.

        Raises StackError when it is named in part only (an address without its credentials).
        """

    def endpoint(self, place: Place) -> dict[str, str]:
        """Fields of `Endpoints` for the local server. Called after `prepare`."""

    def prepare(self, place: Place) -> None:
        """Install, write configuration, format storage. May take minutes the first time; runs in a thread.

        Raises StackError.
        """

    def command(self, place: Place) -> list[str]:
        """The program and its arguments; it must stay in the foreground."""

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The environment of the process, made from the keeper's."""

    def cleanup(self, place: Place) -> None:
        """Remove what the process leaves outside the stack's folder. Called after its end."""

    def ready(self, place: Place) -> bool:
        """True when a client can work. Called again and again from a thread; exceptions are bugs."""
