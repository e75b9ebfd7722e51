"""One object from its first byte (or its resume token) to its last step."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final

from ingestcore.datasets.spec import DatasetSpec, S3Source
from ingestcore.messages.blocks import SEGMENT_BYTES, Block
from ingestcore.messages.objects import ObjectFacts, ObjectRef
from ingestcore.stage import At, Emit, Fate, Line, Origin, Reject, Step, Unbalanced
from ingestcore.stores.objects import Changed, Missing
from ingestcore.tabular.cut import Cut, Cutter, Rest, Rows, TooLong
from ingestcore.tabular.head import FIRST_BYTES, Drift, Head, find_head
from ingestcore.tabular.inflate import Damaged
from services.chunk_downloader.letters import Letters
from services.chunk_downloader.segments import Segments
from services.chunk_downloader.streams import ObjectBytes, Pieces, Workers, again, breaking, take
from services.chunk_downloader.timing import Timing
from services.chunk_downloader.token import Token

PENDING_BYTES: Final = 2 * SEGMENT_BYTES
"""Cut and not sent: beyond this, wait for the hashes that are being computed."""

Steps = Generator[Step | None, None, None]


@dataclass(frozen=True, slots=True)
class Task:
    """One object to read. `start`: as resumed, or the beginning with the settings in force (`resumed` false)."""

    at: At
    ref: ObjectRef
    facts: ObjectFacts
    source: S3Source
    spec: DatasetSpec
    start: Token
    resumed: bool


@dataclass
class Counts:
    """What the log line says about an object."""

    blocks: int = 0
    rows: int = 0
    letters: int = 0


class ObjectRun:
    """Reads one object. `steps` may be closed at any time; then `close`."""

    def __init__(self, task: Task, bytes_: ObjectBytes, workers: Workers, partitions: int, timing: Timing) -> None:
        """`partitions`: of the topic `blocks`."""
        self.counts = Counts()
        self._task, self._bytes, self._partitions, self._timing = task, bytes_, partitions, timing
        self._letters = Letters(task.at, task.ref, task.facts)
        self._origin = Origin.of(task.facts)
        self._token = task.start
        self._done_bytes = task.start.byte
        self._columns: tuple[str, ...] = ()
        self._opening: Line | None = None
        self._pending: deque[Cut | Reject] = deque()
        # A segment's hash needs all of it, also when the object goes on in its middle.
        self._segments_from = task.start.byte // SEGMENT_BYTES * SEGMENT_BYTES
        self._segments = Segments(timing.on(workers.computing, "hash"), self._segments_from)

    def steps(self) -> Steps:
        """Raises Unavailable, Refused: try again later; Unbalanced: a defect."""
        if self._task.ref.size == 0:
            yield self._last_step(self._blank(0))
            return
        try:
            yield from self._read()
        except (Missing, Changed) as error:
            yield from self._end_changed(str(error))

    def _read(self) -> Steps:
        start = self._task.start
        if not self._task.resumed:
            gzip, pieces = yield from self._bytes.sniffed()
            self._token = start = replace(start, gzip=gzip)
            first = 0
        elif start.gzip or not self._segments_from:
            pieces, first = (self._bytes.gzip() if start.gzip else self._bytes.plain(0)), 0
        else:
            pieces, first = self._bytes.plain_head(), self._segments_from
        seen: deque[bytes] = deque()
        try:
            head, rest = yield from self._head(pieces, seen)
        except Damaged as error:
            raw = b"".join(seen)
            yield self._refuse(self._letters.corrupt(Rest(raw, 1, 0, len(raw)), str(error)))
            return
        if isinstance(head, Drift):
            yield self._refuse(self._letters.drift(head))
            return
        self._columns = head.columns
        if not self._task.resumed:
            self._opening = self._blank(head.size)
            self._token = start = replace(start, byte=head.size)
        if first:
            pieces.close()
            rest = self._bytes.plain(first)
        yield from self._cut(rest, first, start)

    def _head(self, pieces: Pieces, seen: deque[bytes]) -> Generator[None, None, tuple[Head | Drift, Pieces]]:
        """Looks at the first bytes, more and more of them. -> what they say, and the stream from its start again.

        `seen` gets what was taken. Raises Damaged: it broke before its head was complete.
        """
        size, wanted, whole = 0, FIRST_BYTES, False
        broke: Damaged | None = None
        while True:
            while size < wanted and not whole and not broke:
                try:
                    piece = yield from take(pieces)
                except Damaged as error:
                    broke = error
                    break
                seen.append(piece)
                size += len(piece)
                whole = not piece
            found = find_head(
                _prefix(seen, wanted),
                self._task.spec,
                whole=whole and size <= wanted,
                max_row_bytes=self._token.max_row_bytes,
            )
            if found:
                return found, again(seen, breaking(broke) if broke else pieces)
            if broke and size <= wanted:
                raise broke
            wanted *= 4

    def _cut(self, stream: Pieces, byte: int, start: Token) -> Steps:
        """`byte`: of the stream's first; may be before `start.byte`, even before the segment it is in."""
        cutter = Cutter(self._task.spec.csv, start.block_bytes, start.max_row_bytes, start.byte, start.row)
        ending: Iterator[Cut | Rest]
        broke = ""
        try:
            for piece in stream:
                if piece is None:
                    yield from self._send(ended=False)
                    yield None
                    continue
                view = memoryview(piece)
                self._segments.feed(view[max(0, self._segments_from - byte) :])
                for cut in self._timing.each("cut", cutter.feed(view[max(0, start.byte - byte) :])):
                    self._pending.append(cut)
                    yield from self._send_paced()
                byte += len(view)
            ending = cutter.end()
        except Damaged as error:
            broke = str(error)
            ending = cutter.broken()
        self._segments.end()
        for cut_ in self._timing.each("cut", ending):
            self._pending.append(self._letters.corrupt(cut_, broke) if isinstance(cut_, Rest) else cut_)
            yield from self._send_paced()
        self._check_bytes()
        yield from self._send_rest()
        if self._opening:
            yield self._last_step(self._opening)

    def _send(self, *, ended: bool) -> Iterator[Step]:
        """What is ready, in order. The last cut is kept until it is known whether it is the object's last."""
        while self._pending and (ended or len(self._pending) > 1):
            item = self._pending[0]
            segments = self._segments.digests(*_segments_of(item)) if isinstance(item, Rows) else ()
            if segments is None:
                return
            self._pending.popleft()
            yield self._step_of(item, segments, last=ended and not self._pending)

    def _send_paced(self) -> Steps:
        yield from self._send(ended=False)
        while self._waits_for_hash():
            yield None
            yield from self._send(ended=False)

    def _send_rest(self) -> Steps:
        yield from self._send(ended=True)
        while self._pending:
            yield None
            yield from self._send(ended=True)

    def _waits_for_hash(self) -> bool:
        if (
            len(self._pending) < 2
            or sum(len(item.data) for item in self._pending if isinstance(item, Rows)) < PENDING_BYTES
        ):
            return False
        item = self._pending[0]
        return isinstance(item, Rows) and self._segments.complete(*_segments_of(item))

    def _end_changed(self, why: str) -> Steps:
        """The listed version is gone: send what can still be hashed, then one letter for the rest."""
        self._pending = deque(takewhile(self._sendable, self._pending))
        taken = self._done_bytes + self._waiting_bytes()
        known = self._segments.read_bytes if self._token.gzip else self._task.ref.size
        self._pending.append(self._letters.changed(why, taken, max(0, known - taken)))
        yield from self._send_rest()

    def _sendable(self, item: Cut | Reject) -> bool:
        return not isinstance(item, Rows) or self._segments.complete(*_segments_of(item))

    def _waiting_bytes(self) -> int:
        return sum(_size(item) for item in self._pending) + (self._opening.nbytes if self._opening else 0)

    def _check_bytes(self) -> None:
        """Every byte read is in a block, a letter or the head."""
        told = self._done_bytes + self._waiting_bytes()
        read = self._segments.read_bytes
        if told != read or (not self._token.gzip and read != self._task.ref.size):
            raise Unbalanced(
                f"{self._task.ref.uri}: {self._task.ref.size} bytes listed, {read} read (inflated), "
                f"{told} accounted for"
            )

    def _blank(self, nbytes: int) -> Line:
        return Line(self._task.at, self._origin, Fate.BLANK, 0, nbytes)

    def _last_step(self, line: Line) -> Step:
        return Step((self._task.at,), (line,))

    def _refuse(self, letter: Reject) -> Step:
        """The whole object, before its first row."""
        self._pending.clear()
        return self._step_of(letter, (), last=True)

    def _step_of(self, item: Cut | Reject, segments: tuple[tuple[int, str], ...], *, last: bool) -> Step:
        """One cut, and with the first of an object its head."""
        emits: tuple[Emit, ...] = ()
        rejects: tuple[Reject, ...] = ()
        if isinstance(item, Rows):
            emits = (self._emit(item, segments, last=last),)
            line = Line(self._task.at, self._origin, Fate.EMITTED, item.rows, len(item.data))
            after = (item.end_byte, item.first_row + item.rows, self._token.block + 1)
        else:
            letter = self._letters.too_long(item, self._token.max_row_bytes) if isinstance(item, TooLong) else item
            rejects = (letter,)
            line = Line(self._task.at, self._origin, Fate.REJECTED, letter.rows, letter.nbytes)
            after = (item.end_byte, item.row + 1, self._token.block) if isinstance(item, TooLong) else (0, 0, 0)
        byte, row, block = after
        self._token = replace(self._token, byte=byte, row=row, block=block)
        tally = (line,) if self._opening is None else (self._opening, line)
        self._opening = None
        self._note(tally, emits, rejects)
        return Step((self._task.at,), tally, emits, rejects, None if last else self._token.encode())

    def _emit(self, rows: Rows, segments: tuple[tuple[int, str], ...], *, last: bool) -> Emit:
        block = Block(
            self._task.facts, self._columns, self._token.block, rows.first_row, rows.first_byte, last, segments
        )
        return Emit(
            "blocks",
            rows.data,
            rows=rows.rows,
            nbytes=len(rows.data),
            key=block.key(),
            partition=block.partition(self._partitions),
            headers=block.headers(),
        )

    def _note(self, tally: tuple[Line, ...], emits: tuple[Emit, ...], rejects: tuple[Reject, ...]) -> None:
        self._done_bytes += sum(line.nbytes for line in tally)
        self.counts.blocks += len(emits)
        self.counts.letters += len(rejects)
        self.counts.rows += sum(line.rows for line in tally)


def _segments_of(rows: Rows) -> tuple[int, int]:
    """-> first and last segment in which a record of the block starts."""
    return rows.first_byte // SEGMENT_BYTES, rows.last_start // SEGMENT_BYTES


def _size(item: Cut | Reject) -> int:
    if isinstance(item, Rows):
        return len(item.data)
    return item.end_byte - item.first_byte if isinstance(item, TooLong) else item.nbytes


def _prefix(pieces: deque[bytes], size: int) -> bytes:
    """-> the first `size` bytes, without joining what comes after them."""
    gathered: list[memoryview] = []
    for piece in pieces:
        gathered.append(memoryview(piece)[:size])
        size -= len(gathered[-1])
        if not size:
            break
    return b"".join(gathered)
