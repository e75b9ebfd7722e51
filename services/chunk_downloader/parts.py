"""Ranges of one object, fetched side by side and handed over in order, within a budget of memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future
from typing import Final

FIRST_PART_BYTES: Final = 4 << 20
"""Memory that reading ahead leaves for objects about to begin."""


class Budget:
    """Bytes of all ranges in memory, shared by the objects side by side. Thread-safe.

    An object that holds a range can always go on, so nobody waits for ever.
    """

    def __init__(self, total_bytes: int) -> None:
        self._lock = threading.Lock()
        self._free_bytes = total_bytes

    @property
    def free_bytes(self) -> int:
        return self._free_bytes

    def take(self, size: int, leave: int = 0) -> bool:
        """-> whether `size` bytes were granted; `leave`: only if so many are free afterwards."""
        with self._lock:
            if size + leave > self._free_bytes:
                return False
            self._free_bytes -= size
            return True

    def give(self, size: int) -> None:
        with self._lock:
            self._free_bytes += size


def parallel_parts(size: int, chunk_size: int, most: int) -> int:
    """-> ranges of an object of `size` bytes to fetch at once: small objects gain nothing from several."""
    return max(1, min(size // chunk_size, most))


def parts(
    get: Callable[[int, int], bytes],
    first: int,
    end: int,
    *,
    chunk_size: int,
    at_once: int,
    in_memory: int,
    pool: Executor,
    budget: Budget,
) -> Generator[bytes | None, None, None]:
    """Bytes first..end in ranges of `chunk_size`, in order. None: the next is not there yet.

    get        (first byte, size) -> exactly these bytes; called on the pool's threads
    at_once    ranges being fetched; in_memory: those and the fetched ones, the one handed over included

    Raises what `get` raises, in its place. Closing it cancels what is not running yet; memory counts as free when
    the last running fetch has ended. A range counts until the next one is asked for.
    """
    waiting: deque[tuple[int, Future[bytes]]] = deque()
    at = first
    try:
        while at < end or waiting:
            while at < end and len(waiting) < in_memory and sum(not job.done() for _, job in waiting) < at_once:
                size = min(chunk_size, end - at)
                # Reading ahead must not starve an object that has nothing yet.
                if not budget.take(size, leave=FIRST_PART_BYTES if waiting else 0):
                    break
                waiting.append((size, pool.submit(get, at, size)))
                at += size
            if not waiting or not waiting[0][1].done():
                yield None
                continue
            size, job = waiting.popleft()
            try:
                yield job.result()
            finally:
                del job
                budget.give(size)
    finally:
        for size, job in waiting:
            job.cancel()
            job.add_done_callback(lambda _, size=size: budget.give(size))  # type: ignore[misc]
