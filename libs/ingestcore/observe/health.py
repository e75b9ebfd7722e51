"""What a service says of itself: alive, ready, and in words what it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class State(StrEnum):
    """`waiting`: something it needs is away; it goes on by itself."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    DRAINING = "draining"
    FAILED = "failed"


class Health:
    """State of one process. Thread-safe. A reason is logged once, when it changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state, self._reason, self._since = State.STARTING, "", time.time()
        self._alive_at = time.monotonic()
        self._details: dict[str, Callable[[], Mapping[str, Any]]] = {}

    def beat(self) -> None:
        """The loop turned."""
        self._alive_at = time.monotonic()

    def ready(self) -> None:
        self._set(State.READY, "")

    def waiting(self, reason: str) -> None:
        self._set(State.WAITING, reason)

    def draining(self) -> None:
        self._set(State.DRAINING, "")

    def failed(self, reason: str) -> None:
        self._set(State.FAILED, reason)

    def _set(self, state: State, reason: str) -> None:
        with self._lock:
            before = (self._state, self._reason)
            if before == (state, reason):
                return
            self._state, self._reason, self._since = state, reason, time.time()
        if state is State.WAITING:
            log.warning("waiting", reason=reason)
        elif state is State.FAILED:
            log.error("stopped", reason=reason)
        elif before[0] is State.WAITING:
            log.info("going on", waited_for=before[1])

    @property
    def state(self) -> State:
        return self._state

    def explain(self, name: str, details: Callable[[], Mapping[str, Any]]) -> None:
        """Add a part to `/health/detailed`."""
        self._details[name] = details

    def detailed(self) -> dict[str, Any]:
        with self._lock:
            told: dict[str, Any] = {
                "state": self._state.value,
                "reason": self._reason,
                "since_seconds": round(time.time() - self._since, 1),
                "loop_idle_seconds": round(time.monotonic() - self._alive_at, 1),
            }
        paused = told["state"] == State.WAITING
        states = {State.DRAINING: "drain", State.WAITING: "paused"}
        told["backpressure"] = {"state": states.get(State(told["state"]), "normal"), "paused": paused}
        for name, details in self._details.items():
            try:
                told[name] = details()
            except Exception as error:
                told[name] = {"error": repr(error)}
        return told
