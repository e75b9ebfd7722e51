"""Which inputs are open, which are done, and what to commit: an offset and metadata per partition. Pure.

Inputs finish out of order. What is done above the low-water offset rides in the commit's metadata, with the resume
tokens of open inputs, so progress commits with the transaction and an operator's offset reset clears it.
A token belongs to a record: it is kept with its offset and a hash of its key and ignored when either differs.

Two more facts ride there for `trials`: how many owners have started on the partition since it last moved on, and which
inputs were being tried when a process may have died of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any, Final

import orjson

from ingestcore.stage import At

METADATA_LIMIT_BYTES: Final = 4_000
"""The broker refuses 4,096."""
_TOKEN_ROOM_BYTES: Final = 480
"""Room kept for the token an open input may still get."""
_TRIES_ROOM_BYTES: Final = 340
"""Room kept for the starts and the tries of `TRIES_LIMIT` inputs."""
TRIES_LIMIT: Final = 6
"""Inputs of a partition that may be suspected of killing the process at once."""
_RANGE_BYTES: Final = 24
"""What one more finished input may add: a range of two offsets."""
_SPAN_LIMIT: Final = 20_000
"""Inputs done above an open one, at most, before admission waits for it."""

Place = tuple[str, int]
"""Topic and partition."""


def owner_of(key: bytes) -> str:
    """-> whose token it is: a hash of the record's key."""
    return hashlib.sha256(key).hexdigest()[:12]


@dataclass(slots=True)
class Mark:
    """How far one input has come.

    pass_id   minted when the input starts without a token, the same for as long as it is resumed
    rows      settled so far in this pass; entries: ledger entries committed so far in this pass
    """

    owner: str
    pass_id: str = field(default_factory=lambda: os.urandom(6).hex())
    token: str | None = None
    rows: int = 0
    entries: int = 0


@dataclass(frozen=True, slots=True)
class Tries:
    """Of one input: how often a process committed that it would begin it now, and has not committed since that it
    survived.

    lived_seconds  so long one of them is known to have lived with it
    aside          0: it is being tried; else it is set aside, and so many owners have ended since, and this one
    """

    owner: str
    count: int
    lived_seconds: float = 0.0
    aside: int = 0


class Partition:
    """Progress of one partition from one assignment to the next.

    starts    owners that began here since the last one that got on
    tries     by offset
    got_on    inputs that finished or came further since the last commit
    """

    def __init__(self, offset: int, metadata: str) -> None:
        stored: dict[str, Any] = orjson.loads(metadata) if metadata else {}
        self.low = self.next = max(offset, 0)
        self.open: dict[int, Mark] = {}
        self._done: dict[int, None] = {}
        self._ranges = [(a, b) for a, b in stored.get("d", ())]
        self._unread = {
            int(o): Mark(owner, pass_id, token, rows, entries)
            for o, (owner, pass_id, token, rows, entries) in stored.get("t", {}).items()
        }
        self.starts = int(stored.get("s", 0))
        self.tries = {int(o): Tries(*facts) for o, facts in stored.get("x", {}).items()}
        self.got_on: set[int] = set()
        self.sent: tuple[int, str] = (offset, metadata)
        self._encoded_bytes, self._finished_since = len(metadata), 0

    def admit(self, offset: int, key: bytes) -> Mark | None:
        """A record is delivered. -> its mark, or None: it was done before."""
        self.next = offset + 1
        if any(a <= offset <= b for a, b in self._ranges):
            self._done[offset] = None
            return None
        mark = self._unread.pop(offset, None)
        if mark is None or mark.owner != owner_of(key):
            mark = Mark(owner_of(key))
        tries = self.tries.get(offset)
        if tries is not None and tries.owner != mark.owner:
            del self.tries[offset]
        self.open[offset] = mark
        return mark

    def get_on(self, offset: int, token: str) -> None:
        """An open input came further."""
        mark = self.open[offset]
        if token != mark.token:
            self._survived(offset)
        mark.token = token

    def _survived(self, offset: int) -> None:
        self.tries.pop(offset, None)
        self.got_on.add(offset)

    def finish(self, offset: int) -> None:
        del self.open[offset]
        self._survived(offset)
        self._done[offset] = None
        self._finished_since += 1

    def has_room(self, running: int) -> bool:
        """May another input be opened without the metadata outgrowing its limit?

        running  inputs of this partition that may still ask for a token
        """
        if len(self._done) > _SPAN_LIMIT:
            return False
        tokens = _TOKEN_ROOM_BYTES * (running + 1) + _TRIES_ROOM_BYTES
        if self._encoded_bytes + _RANGE_BYTES * self._finished_since + tokens < METADATA_LIMIT_BYTES:
            return True
        # The bound is loose (neighbours share a range): look closely before saying no.
        self.low = min(self.open, default=self.next)
        self._encoded_bytes, self._finished_since = len(self._encode()), 0
        return self._encoded_bytes + tokens < METADATA_LIMIT_BYTES

    def position(self) -> tuple[int, str]:
        """-> (offset, metadata) to commit. Raises OverflowError: the metadata does not fit; nothing may be
        committed then, since a token left out would double its rows."""
        self.low = min(self.open, default=self.next)
        self._done = {o: None for o in self._done if o >= self.low}
        text = self._encode()
        self._encoded_bytes, self._finished_since = len(text), 0
        if len(text) > METADATA_LIMIT_BYTES:
            raise OverflowError(f"{len(text)} bytes of offset metadata, {METADATA_LIMIT_BYTES} fit")
        return self.low, text

    def _encode(self) -> str:
        marks = self._unread | self.open
        tokens = {
            str(o): (m.owner, m.pass_id, m.token, m.rows, m.entries)
            for o, m in marks.items()
            if m.token is not None and o >= self.low
        }
        done = list(self._runs()) if self.open else [r for r in self._ranges if r[1] >= self.next]
        tries = {str(o): astuple(tried) for o, tried in self.tries.items() if o >= self.low}
        facts: dict[str, Any] = {"d": done, "t": tokens} if tokens or done else {}
        facts |= {name: value for name, value in (("s", self.starts), ("x", tries)) if value}
        return orjson.dumps(facts).decode() if facts else ""

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Done offsets above low water as ranges. Offsets in between that were never delivered (transaction markers,
        aborted records) do not break a range: nothing will be delivered there later either."""
        first = last = None
        for offset in sorted(o for o in (self._done | self.open) if o >= self.low):
            if offset in self.open:
                if first is not None and last is not None:
                    yield first, last
                first = None
            else:
                first, last = offset if first is None else first, offset
        if first is not None and last is not None:
            yield first, last
        # Done before this assignment and not delivered again yet.
        yield from ((max(a, self.next), b) for a, b in self._ranges if b >= self.next)


class Progress:
    """Progress of all partitions this process owns."""

    def __init__(self) -> None:
        self.parts: dict[Place, Partition] = {}

    def assign(self, place: Place, offset: int, metadata: str) -> None:
        """What is committed for a partition. Metadata that is not ours (an operator's) is ignored."""
        try:
            self.parts[place] = Partition(offset, metadata)
        except (orjson.JSONDecodeError, TypeError, ValueError):
            self.parts[place] = Partition(offset, "")

    def forget(self, place: Place) -> None:
        self.parts.pop(place, None)

    def rewind(self) -> None:
        """Back to what was committed last; nothing is open."""
        for place, part in self.parts.items():
            self.assign(place, *part.sent)

    def admit(self, at: At, key: bytes) -> Mark | None:
        """A record is delivered. -> its mark, or None: skip it, it was done before."""
        return self.parts[at[:2]].admit(at.offset, key)

    def has_room(self, place: Place, running: int) -> bool:
        return self.parts[place].has_room(running)

    def mark(self, at: At) -> Mark:
        return self.parts[at[:2]].open[at.offset]

    def note(self, at: At, rows: int, resume: str | None) -> int | None:
        """A step covers this input. -> rows settled in all when it was the input's last step, else None."""
        part = self.parts[at[:2]]
        mark = part.open[at.offset]
        mark.rows += rows
        if resume is not None:
            part.get_on(at.offset, resume)
            return None
        part.finish(at.offset)
        return mark.rows

    def pass_markers(self, place: Place, position: int) -> bool:
        """Nothing is open and the reader stands behind the last record: transaction markers lie between. -> moved?"""
        part = self.parts.get(place)
        if part is None or part.open or position <= part.next:
            return False
        part.next = position
        return True

    def waiting(self, ends: Mapping[int, int], topic: str) -> int:
        """-> offsets between what was delivered and these ends, by partition: records nobody has read, and the
        transaction markers between them."""
        parts = ((end, self.parts.get((topic, partition))) for partition, end in ends.items())
        return sum(max(0, end - part.next) for end, part in parts if part is not None)

    def commit(self) -> dict[Place, tuple[int, str]]:
        """-> (offset, metadata) of partitions that moved since the last call."""
        moved = {}
        for place, part in self.parts.items():
            now = part.position()
            if now != part.sent:
                moved[place] = part.sent = now
        return moved
