"""Hangs up on a server that says nothing at all: frozen, or behind a network that is gone. Its own time limits need it
to run."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType


class Silence:
    """While the block runs: after so many seconds without `heard` the connection is shut, and the call that waits gets
    an error.

    line  -> file descriptor of the connection; None: there is none now
    """

    def __init__(self, seconds: float, line: Callable[[], int | None]) -> None:
        self._seconds, self._line = seconds, line
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._heard_at = 0.0
        self.broken = False
        """Whether it has hung up in this block."""

    def heard(self) -> None:
        """The server has answered."""
        self._heard_at = time.monotonic()

    def __enter__(self) -> Silence:
        self.broken = False
        self.heard()
        self._arm(self._seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None

    def _arm(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._look)
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        """Runs in the timer's thread."""
        with self._lock:
            if self._timer is None:
                return
            left = self._heard_at + self._seconds - time.monotonic()
            line = self._line()
            if left > 0 or line is None:
                self._arm(max(left, 1.0))
                return
            self.broken = True
            # A copy of the descriptor: the connection closes its own.
            with contextlib.suppress(OSError), socket.fromfd(line, socket.AF_INET, socket.SOCK_STREAM) as copy:
                copy.shutdown(socket.SHUT_RDWR)
