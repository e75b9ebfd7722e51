"""Snapshots: what has been handed on so far, sorted, in parts that are never changed once written.

A new snapshot shares with the one before it every part in which nothing changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from services.s3_lister.checkpoint import Unreadable
from services.s3_lister.stage import Change, Seen

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Part:
    """Entries of one file that come after key `after`; `last` is the last of them. `entries` counts the file's."""

    uri: str
    last: str
    entries: int
    after: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What has been handed on of one bucket, by key.

    in_byte_order  False: the store was seen to list in another order
    before         URI of the snapshot at the start of the scan that made this one, kept for an operator to go back to
    """

    bucket: str
    parts: tuple[Part, ...] = ()
    in_byte_order: bool = True
    before: str = ""

    def encode(self) -> bytes:
        return orjson.dumps({"version": VERSION} | asdict(self), option=orjson.OPT_INDENT_2)

    @classmethod
    def decode(cls, data: bytes) -> Snapshot:
        """Raises Unreadable."""
        try:
            stored: dict[str, Any] = orjson.loads(data)
            if stored["version"] != VERSION:
                raise Unreadable(f"it has version {stored['version']}; this service reads {VERSION}")
            parts = tuple(Part(**part) for part in stored["parts"])
            return cls(stored["bucket"], parts, bool(stored["in_byte_order"]), stored["before"])
        except (KeyError, TypeError, orjson.JSONDecodeError) as error:
            raise Unreadable("it is no snapshot of a lister") from error


class Chunk:
    """Entries on their way into a part: written once, whoever asks first."""

    def __init__(self, entries: list[Seen]) -> None:
        self._entries, self._part = entries, None if entries else _NO_PART

    def written(self, write: WritePart) -> Part:
        if self._part is None:
            self._part = write(self._entries)
            self._entries = []
        return self._part


_NO_PART: Final = Part("", "", 0)
WritePart = Callable[[Sequence[Seen]], Part]
Draft = tuple[Part | Chunk, ...]
"""A snapshot whose last parts may not be written yet."""


def write_out(draft: Draft, write: WritePart) -> tuple[Part, ...]:
    parts = (piece.written(write) if isinstance(piece, Chunk) else piece for piece in draft)
    return tuple(part for part in parts if part is not _NO_PART)


class Rewrite:
    """Turns the parts of one snapshot into those of the next while a merge goes by, in ascending order of keys.

    Each old part stands for the keys after the part before it and up to its own last key, the last part for all that
    follow. A part without a change in its range is taken over as it is. Others are written anew, between half of
    `part_entries` and twice as many each, so that one key more does not ripple through all parts that follow.
    Nothing is written before `spill` or `write_out`, so `take` cannot fail half-way.
    """

    def __init__(self, old: tuple[Part, ...], start_after: str, part_entries: int) -> None:
        skipped = 0
        while skipped < len(old) - 1 and old[skipped].last <= start_after:
            skipped += 1
        self._done: list[Part | Chunk] = list(old[:skipped])
        self._spilled = skipped
        self._open = list(old[skipped:])
        self.to_read = tuple(self._open)
        """Parts the merge has to see."""
        self._held: list[Seen] = []
        self._dirty = bool(self._open and self._open[0].after)
        self._entries = part_entries

    def take(self, key: str, change: Change) -> None:
        """The next key of the merge."""
        while len(self._open) > 1 and key > self._open[0].last:
            self._close_range()
        if change.after is not change.before:
            self._dirty = True
        if change.after is not None:
            self._held.append(change.after)
            if self._dirty and len(self._held) >= 2 * self._entries:
                self._done.append(Chunk(self._held[: self._entries]))
                self._held = self._held[self._entries :]

    def spill(self, write: WritePart) -> None:
        """Write what is ready, so that it needs no memory."""
        while self._spilled < len(self._done):
            piece = self._done[self._spilled]
            if isinstance(piece, Chunk):
                self._done[self._spilled] = piece.written(write)
            self._spilled += 1

    def draft(self, last_key: str) -> Draft:
        """-> the snapshot as it stands: new up to `last_key`, the key last taken, old after it."""
        if not self._dirty:
            return (*self._done, *self._open)
        rest = self._open
        if rest and last_key >= rest[0].last:
            rest = rest[1:]
        elif rest and last_key > rest[0].after:
            cut = rest[0]
            rest = [Part(cut.uri, cut.last, cut.entries, last_key), *rest[1:]]
        return (*self._done, Chunk(list(self._held)), *rest)

    def finished(self) -> Draft:
        """-> the snapshot when the merge is over."""
        while len(self._open) > 1:
            self._close_range()
        return (*self._done, Chunk(self._held)) if self._dirty else (*self._done, *self._open)

    def _close_range(self) -> None:
        old = self._open.pop(0)
        if not self._dirty:
            self._done.append(old)
        elif self._held and len(self._held) < self._entries // 2:
            return  # too few for a part of their own: the next range goes with them
        elif self._held:
            self._done.append(Chunk(self._held))
        self._held = []
        self._dirty = bool(self._open and self._open[0].after)
