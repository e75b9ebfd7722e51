"""Where an object's time goes: seconds per step, over all threads that worked on it."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


class Timing:
    """Seconds by step: `fetch`, `inflate`, `hash`, `cut`. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = defaultdict(float)
        self._started = time.perf_counter()

    def add(self, step: str, seconds: float) -> None:
        with self._lock:
            self._seconds[step] += seconds

    def seconds(self) -> dict[str, float]:
        """-> seconds by step; `total` is the time since the start on the clock."""
        with self._lock:
            return {**self._seconds, "total": time.perf_counter() - self._started}

    def on(self, pool: Executor, step: str) -> Executor:
        """-> the same pool; what runs on it counts as `step`."""
        return _Timed(pool, lambda seconds: self.add(step, seconds))

    def each(self, step: str, items: Iterator[T]) -> Iterator[T]:
        """-> the same items; making them counts as `step`, what their taker does with them does not."""
        while True:
            started = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.add(step, time.perf_counter() - started)
            yield item


class _Timed(Executor):
    def __init__(self, pool: Executor, add: Callable[[float], None]) -> None:
        self._pool = pool
        self._add = add

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        def timed() -> T:
            started = time.perf_counter()
            try:
                return fn(*args, **kwargs)
            finally:
                self._add(time.perf_counter() - started)

        return self._pool.submit(timed)
