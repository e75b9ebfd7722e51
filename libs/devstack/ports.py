"""Free TCP ports on 127.0.0.1, the same ones again on a restart."""

from __future__ import annotations

import fcntl
import os
import random
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from devstack.server import HOST, StackError

# Below the range from which Linux and macOS give outgoing connections their local ports: there a port that
# was free a moment ago may be gone when the server binds it.
FIRST_PORT = 20_000
LAST_PORT = 32_000
ATTEMPTS = 2_000


class PortClaims:
    """Ports kept for one stack while its servers start and run.

    Two stacks starting at once could both see the same port free. So each also locks byte N of a shared file
    for port N; the system lets go of the lock with the process.
    """

    def __init__(self, cache: Path) -> None:
        cache.mkdir(parents=True, exist_ok=True)
        self._lock = (cache / "ports.lock").open("wb")
        self._taken: set[int] = set()

    def __enter__(self) -> PortClaims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

    def choose(self, names: tuple[str, ...], remembered: Mapping[str, int]) -> dict[str, int]:
        """A port per name, the remembered one where it is still free. Raises StackError when none is left."""
        return {name: self._one(remembered.get(name)) for name in names}

    def _one(self, wish: int | None) -> int:
        if wish is not None and self._claim(wish):
            return wish
        for _ in range(ATTEMPTS):
            port = random.randrange(FIRST_PORT, LAST_PORT)
            if self._claim(port):
                return port
        raise StackError(f"no free port between {FIRST_PORT} and {LAST_PORT} on {HOST}")

    def _claim(self, port: int) -> bool:
        if port in self._taken or not _free(port):
            return False
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port, os.SEEK_SET)
        except OSError:
            return False
        self._taken.add(port)
        return True


def _free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do; without it the closed connections of the last run hold the port for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def listening(port: int) -> bool:
    """Whether something accepts connections on 127.0.0.1:port."""
    try:
        with socket.create_connection((HOST, port), timeout=2.0):
            return True
    except OSError:
        return False
