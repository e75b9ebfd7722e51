"""What a service says of itself: alive, ready, and in words what it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)


class State(StrEnum):
    """`waiting`: something it needs is away; it goes on by itself."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    DRAINING = "draining"
    FAILED = "failed"


class Pressure(StrEnum):
    """How freely input is taken, mildest first. `throttled`: a server asked for a lower rate; `brownout`: rows of low
    priority are shed; `drain`: an operator asked to finish and take nothing new; `paused`: something it needs is away.
    """

    NORMAL = "normal"
    THROTTLED = "throttled"
    BROWNOUT = "brownout"
    DRAIN = "drain"
    PAUSED = "paused"


_THROTTLED_SECONDS: Final = 30.0
"""How long one refusal for rate counts."""


class Health:
    """State of one process. Thread-safe. A reason is logged once, when it changes.

    drain  begin drained: nothing is taken until `resume`
    """

    def __init__(self, *, drain: bool = False) -> None:
        self._lock = threading.Lock()
        self._state, self._reason, self._since = State.STARTING, "", time.time()
        self._alive_at = time.monotonic()
        self._drain_since = time.time() if drain else None
        self._drained, self._in_flight = False, 0
        self._throttled_at = -_THROTTLED_SECONDS
        self._details: dict[str, Callable[[], Mapping[str, Any]]] = {"adapters": dict}
        self._breaker: Callable[[], bool] = bool

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

    # -- drain and resume, at an operator's wish
    def drain(self) -> None:
        """Ask to finish what is in flight and to take nothing new. The process stays alive."""
        with self._lock:
            if self._drain_since is not None:
                return
            self._drain_since, self._drained = time.time(), False
        log.info("drain asked for")

    def resume(self) -> None:
        with self._lock:
            if self._drain_since is None:
                return
            self._drain_since, self._drained = None, False
        log.info("resumed")

    @property
    def asked_to_drain(self) -> bool:
        return self._drain_since is not None

    def in_flight(self, inputs: int, *, drained: bool = False) -> None:
        """The loop says how many inputs are at work; drained: all that was asked to be finished is committed."""
        with self._lock:
            self._in_flight = inputs
            news = drained and not self._drained and self._drain_since is not None
            self._drained = self._drained or news
        if news:
            log.info("drained: idle until resumed")

    def throttled(self) -> None:
        """A server asked for a lower rate."""
        self._throttled_at = time.monotonic()

    @property
    def pressure(self) -> Pressure:
        if self.asked_to_drain or self._state is State.DRAINING:
            return Pressure.DRAIN
        if self._state is State.WAITING:
            return Pressure.PAUSED
        recently = time.monotonic() - self._throttled_at < _THROTTLED_SECONDS
        return Pressure.THROTTLED if recently else Pressure.NORMAL

    def backpressure(self) -> dict[str, Any]:
        """-> state, inputs at work, whether a drain is complete, and what is waited for."""
        since, state = self._drain_since, self._state
        told: dict[str, Any] = {"state": self.pressure.value, "in_flight": self._in_flight, "drained": self._drained}
        if since is not None:
            told["drain_seconds"] = round(time.time() - since, 1)
        if state is State.WAITING:
            told["waiting_for"] = self._reason
        return told

    def watch_breaker(self, is_open: Callable[[], bool]) -> None:
        """A stage has a circuit breaker of its own, which may be open while rows go on another way."""
        self._breaker = is_open

    @property
    def circuit_open(self) -> bool:
        """Whether something it needs is away."""
        return self._state is State.WAITING or self._breaker()

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
        told["backpressure"] = self.backpressure()
        for name, details in list(self._details.items()):
            try:
                told[name] = details()
            except Exception as error:
                told[name] = {"error": repr(error)}
        return told
