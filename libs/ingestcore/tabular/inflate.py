"""gzip, streamed: several members, zero padding, checksums; memory stays bounded whatever the ratio."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from concurrent.futures import Executor
from typing import Final

from isal import igzip_lib

MAGIC: Final = b"\x1f\x8b"
PIECE_BYTES: Final = 2 << 20
"""Inflated bytes handed over at a time, about."""

SLICE_BYTES: Final = 4 << 10
"""Compressed bytes inflated at a time. A damaged slice yields nothing, so this is how close to a break we read."""


# Its stub says an instance where it is a class.
_INVALID: Final[type[Exception]] = igzip_lib.IsalError  # type: ignore[assignment]


class Damaged(Exception):
    """The compressed bytes are broken or end too early. What came before has been handed over."""


class Inflater:
    """One gzip stream. Not thread-safe; one caller at a time."""

    def __init__(self) -> None:
        self._member = _new_member()
        self._in_member = False
        self._members = 0
        self._padding = False
        self.read_bytes = 0
        self.made_bytes = 0

    def inflate(self, part: bytes) -> Iterator[bytes]:
        """-> inflated pieces. `part` starts at a multiple of SLICE_BYTES. Raises Damaged after the last good piece."""
        view = memoryview(part)
        gathered: list[bytes] = []
        size = 0
        for start in range(0, len(view), SLICE_BYTES):
            try:
                for made in self._slice(view[start : start + SLICE_BYTES]):
                    gathered.append(made)
                    size += len(made)
                    if size >= PIECE_BYTES:
                        yield b"".join(gathered)
                        gathered, size = [], 0
            except (_INVALID, EOFError, Damaged) as error:
                if gathered:
                    yield b"".join(gathered)
                raise Damaged(f"{_said(error)}: {self._place()}") from error
            self.read_bytes += min(SLICE_BYTES, len(view) - start)
        if gathered:
            yield b"".join(gathered)

    def end(self) -> None:
        """Raises Damaged: the stream is cut short."""
        if self._in_member or not self._members:
            raise Damaged(f"the gzip stream is cut short: {self._place()}")

    def _slice(self, data: memoryview | bytes) -> Iterator[bytes]:
        while len(data):
            if not self._in_member:
                data = self._next_member(data)
                if not len(data):
                    return
            made = self._member.decompress(data, PIECE_BYTES)
            while made:
                self.made_bytes += len(made)
                yield made
                made = (
                    b"" if self._member.needs_input or self._member.eof else self._member.decompress(b"", PIECE_BYTES)
                )
            if not self._member.eof:
                return
            data = self._member.unused_data
            self._in_member = False
            self._members += 1

    def _next_member(self, data: memoryview | bytes) -> bytes:
        """-> data of the next member, zero padding after a member dropped."""
        rest = bytes(data)
        if self._members:
            bare = rest.lstrip(b"\0")
            self._padding = self._padding or len(bare) < len(rest)
            rest = bare
        if rest and self._padding:
            raise Damaged("other bytes follow the zero padding of the gzip stream")
        if rest:
            self._member, self._in_member = _new_member(), True
        return rest

    def _place(self) -> str:
        return f"after byte {self.read_bytes} of the object as stored, byte {self.made_bytes} inflated"


def inflated(parts: Iterator[bytes | None], pool: Executor) -> Generator[bytes | None, None, None]:
    """Parts of a gzip object -> inflated pieces in order, made one ahead on the pool. None: not ready.

    Raises Damaged.
    """
    inflater = Inflater()
    for part in parts:
        if part is None:
            yield None
            continue
        pieces = inflater.inflate(part)
        ahead = pool.submit(next, pieces, None)
        while True:
            while not ahead.done():
                yield None
            piece = ahead.result()
            if piece is None:
                break
            ahead = pool.submit(next, pieces, None)
            yield piece
    inflater.end()


def _said(error: Exception) -> str:
    if isinstance(error, Damaged):
        return str(error)
    return "the gzip stream is damaged (" + re.sub(r"^Error -?\d+ ", "", str(error)) + ")"


def _new_member() -> igzip_lib.IgzipDecompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
