"""The bytes of one object as the cutter wants them: in order, inflated, from any byte on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from ingestcore.tabular.inflate import MAGIC, inflated
from services.chunk_downloader.parts import Budget, parallel_parts, parts
from services.chunk_downloader.settings import ChunkDownloaderSettings
from services.chunk_downloader.timing import Timing

HEAD_CHUNK_BYTES: Final = 256 << 10
"""Range for the head of an object that is resumed further on."""

Pieces = Generator[bytes | None, None, None]
"""Bytes in order; None: the next are not there yet."""


@dataclass(frozen=True)
class Workers:
    """What all objects share: threads that fetch, threads that inflate and hash, and the memory they may use."""

    fetching: Executor
    computing: Executor
    budget: Budget


class ObjectBytes:
    """Opens streams of one object; `close` gives back what they hold.

    get  (first byte, size) -> exactly these bytes of the listed version
    """

    def __init__(
        self,
        get: Callable[[int, int], bytes],
        key: str,
        size: int,
        settings: ChunkDownloaderSettings,
        workers: Workers,
        timing: Timing,
    ) -> None:
        self._get, self._key, self._size = get, key, size
        self._settings, self._workers, self._timing = settings, workers, timing
        self._open = ExitStack()

    def close(self) -> None:
        self._open.close()

    def sniffed(self) -> Generator[None, None, tuple[bool, Pieces]]:
        """The object from byte 0, and whether it is gzip: by its name or its first bytes."""
        stored = self._stored(0, self._settings.chunk_size)
        first = yield from take(stored)
        gzip = self._key.lower().endswith((".gz", ".gzip")) or first.startswith(MAGIC)
        pieces = again(deque([first]), stored)
        return gzip, self._inflated(pieces) if gzip else pieces

    def gzip(self) -> Pieces:
        """The inflated object from byte 0: gzip cannot be entered in the middle."""
        return self._inflated(self._stored(0, self._settings.chunk_size))

    def plain(self, first: int) -> Pieces:
        """The object from `first` on."""
        return self._stored(first, self._settings.chunk_size)

    def plain_head(self) -> Pieces:
        """The object from byte 0 in small ranges, one at a time."""
        return self._stored(0, min(self._settings.chunk_size, HEAD_CHUNK_BYTES), in_memory=1)

    def _stored(self, first: int, chunk_size: int, in_memory: int | None = None) -> Pieces:
        depth = in_memory or self._settings.buffer_chunks
        stream = parts(
            self._get,
            first,
            self._size,
            chunk_size=chunk_size,
            at_once=parallel_parts(self._size, chunk_size, min(depth, self._settings.max_workers)),
            in_memory=depth,
            pool=self._timing.on(self._workers.fetching, "fetch"),
            budget=self._workers.budget,
        )
        self._open.callback(stream.close)
        return stream

    def _inflated(self, stored: Pieces) -> Pieces:
        return inflated(stored, self._timing.on(self._workers.computing, "inflate"))


def take(pieces: Pieces) -> Generator[None, None, bytes]:
    """Wait for the next piece. -> b"" at the end."""
    for piece in pieces:
        if piece is not None:
            return piece
        yield None
    return b""


def again(seen: deque[bytes], pieces: Pieces) -> Pieces:
    """-> what was looked at already, then the rest. Lets go of each piece."""
    while seen:
        yield seen.popleft()
    yield from pieces


def breaking(error: Exception) -> Pieces:
    """-> a stream that raises what was raised before, in its place."""
    raise error
    yield
