"""SHA-256 of every 4 MiB-aligned segment of the (decompressed) object: what `contentHash` of a row is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor, Future

from ingestcore.messages.blocks import SEGMENT_BYTES


class Segments:
    """Takes the bytes in order, hashes each of them once, on the pool (hashing releases the GIL)."""

    def __init__(self, pool: Executor, first_byte: int = 0) -> None:
        """`first_byte`: of the first piece; a multiple of SEGMENT_BYTES."""
        self._pool = pool
        self._held: list[memoryview] = []
        self._held_bytes = 0
        self._jobs: dict[int, Future[str]] = {}
        self._number = first_byte // SEGMENT_BYTES
        self.read_bytes = first_byte

    def feed(self, piece: memoryview) -> None:
        self.read_bytes += len(piece)
        while len(piece):
            part = piece[: SEGMENT_BYTES - self._held_bytes]
            piece = piece[len(part) :]
            self._held.append(part)
            self._held_bytes += len(part)
            if self._held_bytes == SEGMENT_BYTES:
                self._submit()

    def end(self) -> None:
        """The object ends here: the last segment is a short one."""
        if self._held:
            self._submit()

    def complete(self, first: int, last: int) -> bool:
        """Whether segments first..last have been read completely."""
        return last < self._number

    def digests(self, first: int, last: int) -> tuple[tuple[int, str], ...] | None:
        """-> (number, SHA-256 hex) of segments first..last; None: not ready. Earlier ones are forgotten."""
        for number in [number for number in self._jobs if number < first]:
            del self._jobs[number]
        jobs = [(number, self._jobs.get(number)) for number in range(first, last + 1)]
        if any(job is None or not job.done() for _, job in jobs):
            return None
        return tuple((number, job.result()) for number, job in jobs if job)

    def _submit(self) -> None:
        self._jobs[self._number] = self._pool.submit(_sha256, self._held)
        self._number += 1
        self._held, self._held_bytes = [], 0


def _sha256(pieces: Sequence[memoryview]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
