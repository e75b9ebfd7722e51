"""The bytes of an object version in S3: a range of them, a segment and its hash, or a row found from the beginning."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from ingestcore.datasets.spec import DatasetSpec
from ingestcore.messages.blocks import SEGMENT_BYTES
from ingestcore.stores.objects import ObjectStore
from ingestcore.tabular.cut import Cut, Cutter, Rest, TooLong
from ingestcore.tabular.head import FIRST_BYTES, Drift, Head, find_head
from ingestcore.tabular.inflate import Damaged
from ingestcore.tabular.records import Records
from ingestcore.tabular.rehearsal import inflate, is_gzip

_PART_BYTES: Final = 8 << 20
"""One request. A multiple of what is inflated at a time."""
_BLOCK_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """A row, found by reading. first_byte: of its first byte, inflated; columns: of the header."""

    raw: bytes
    first_byte: int
    columns: tuple[str, ...]


class StoredObject:
    """One version of one object. size: as stored. Every method may raise Missing, Changed (that version is gone),
    Damaged, Unavailable, Refused."""

    def __init__(self, store: ObjectStore, bucket: str, key: str, etag: str, size: int) -> None:
        self._store, self._bucket, self._key, self.etag, self.size = store, bucket, key, etag, size
        self._gzip: bool | None = None

    @property
    def gzip(self) -> bool:
        if self._gzip is None:
            first = self._store.get_range(self._bucket, self._key, self.etag, 0, min(2, self.size))
            self._gzip = is_gzip(self._key, first)
        return self._gzip

    def bytes_of(self, first: int, last: int) -> bytes:
        """-> bytes first..last (exclusive) of the object, inflated if it is compressed; fewer at its end."""
        if not self.gzip:
            last = min(last, self.size)
            return self._store.get_range(self._bucket, self._key, self.etag, first, max(0, last - first))
        at, gathered = 0, bytearray()
        for piece in self.pieces():
            gathered += piece[max(0, first - at) : max(0, last - at)]
            at += len(piece)
            if at >= last:
                break
        return bytes(gathered)

    def content_hash(self, byte: int) -> tuple[int, str]:
        """-> number and SHA-256 (hex) of the segment that holds a byte."""
        number = byte // SEGMENT_BYTES
        return number, hashlib.sha256(self.bytes_of(number * SEGMENT_BYTES, (number + 1) * SEGMENT_BYTES)).hexdigest()

    def pieces(self) -> Iterator[bytes]:
        """-> the object from its beginning, inflated."""
        return inflate(self._stored()) if self.gzip else self._stored()

    def _stored(self) -> Iterator[bytes]:
        for first in range(0, self.size, _PART_BYTES):
            size = min(_PART_BYTES, self.size - first)
            yield self._store.get_range(self._bucket, self._key, self.etag, first, size)

    def find(self, spec: DatasetSpec, row: int, max_row_bytes: int) -> Found | None:
        """-> a row by its number, reading from the beginning as the downloader does; None: the object has fewer rows,
        or none that this dataset reads."""
        pieces = self.pieces()
        head, seen = _head(pieces, spec, max_row_bytes)
        if head is None:
            return None
        cutter = Cutter(spec.csv, _BLOCK_BYTES, max_row_bytes, head.size)
        for cut in _cuts(cutter, chain([seen[head.size :]], pieces)):
            if isinstance(cut, TooLong):
                if cut.row == row:
                    return Found(cut.raw, cut.first_byte, head.columns)
            elif cut.first_row <= row < cut.first_row + cut.rows:
                records, place = Records.of(cut.data, spec.csv), row - cut.first_row
                return Found(records.raw(place), cut.first_byte + int(records.starts[place]), head.columns)
        return None


def _cuts(cutter: Cutter, pieces: Iterable[bytes]) -> Iterator[Cut]:
    """-> what the downloader made of the object: of a damaged one what comes before the break."""
    try:
        for piece in pieces:
            yield from cutter.feed(memoryview(piece))
    except Damaged:
        yield from (cut for cut in cutter.broken() if not isinstance(cut, Rest))
    else:
        yield from cutter.end()


def _head(pieces: Iterator[bytes], spec: DatasetSpec, max_row_bytes: int) -> tuple[Head | None, bytes]:
    """-> the head and the bytes read for it."""
    seen, wanted, ended = b"", FIRST_BYTES, False
    while True:
        while len(seen) < wanted and not ended:
            piece = next(pieces, b"")
            seen, ended = seen + piece, not piece
        found = find_head(seen[:wanted], spec, whole=ended and len(seen) <= wanted, max_row_bytes=max_row_bytes)
        if found is not None or (ended and len(seen) <= wanted):
            return (None if isinstance(found, Drift) else found), seen
        wanted *= 4
