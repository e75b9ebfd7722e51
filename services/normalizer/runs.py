"""One sorted run of committed keys: a file of all high words ascending, then the low words in the same order (little
endian). It is written under a temporary name, synced and renamed; what it holds is checked whenever it is read whole.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from services.normalizer.keys import KEY_BYTES, WORD, Keys, SortedKeys, Words
from services.normalizer.slices import Slice

PIECE_KEYS: Final = 1 << 20
"""Keys handled at a time when a run is read from end to end."""


class Unfit(Exception):
    """Local state is not what is asked for: damaged, or of another topic or partition count."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the manifest says of one run. Checksums are CRC-32 of the two columns; its keys are all of one slice."""

    name: str
    keys: int
    crc_high: int
    crc_low: int
    window_ms: int
    slice_number: int


class Checksum:
    """CRC-32 of both columns of a run, taken piece by piece in order."""

    def __init__(self) -> None:
        self.high = self.low = 0

    def add(self, piece: Keys | SortedKeys) -> None:
        self.high = zlib.crc32(_data(piece.high), self.high)
        self.low = zlib.crc32(_data(piece.low), self.low)


class Run:
    """One run, memory-mapped for lookups."""

    def __init__(self, folder: Path, facts: RunFacts) -> None:
        """Raises Unfit: the file is missing or has another size."""
        self.facts, self.path = facts, folder / facts.name
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size != facts.keys * KEY_BYTES:
                    raise Unfit(f"{self.path} is cut short")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise Unfit(f"{self.path}: {error.strerror}") from error
        words = np.frombuffer(self._map, WORD)
        self.keys = SortedKeys(words[: facts.keys], words[facts.keys :])

    @property
    def slice(self) -> Slice:
        return Slice(self.facts.window_ms, self.facts.slice_number)

    def read(self) -> Iterator[Keys]:
        """The keys in order, a piece at a time, checked on the way. Raises Unfit at the end: wrong checksum."""
        checksum = Checksum()
        for start in range(0, len(self.keys), PIECE_KEYS):
            piece = slice(start, start + PIECE_KEYS)
            keys = Keys(self.keys.high[piece], self.keys.low[piece])
            checksum.add(keys)
            yield keys
            self.release()
        self.check(checksum)

    def check(self, found: Checksum) -> None:
        """Raises Unfit: this is not what was written."""
        if (found.high, found.low) != (self.facts.crc_high, self.facts.crc_low):
            raise Unfit(f"{self.path} is damaged: its checksum does not fit")

    def release(self) -> None:
        """Take the pages out of this process's memory; the system may keep them cached."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class RunWriter:
    """Writes one run of a known number of keys, piece by piece, in ascending order."""

    def __init__(self, path: Path, keys: int) -> None:
        self.path, self._keys, self._written = path, keys, 0
        self._temp = path.with_name(path.name + ".tmp")
        self._file = self._temp.open("wb")
        self._checksum = Checksum()

    def write(self, piece: SortedKeys) -> None:
        for column_start, words in ((0, piece.high), (self._keys, piece.low)):
            self._file.seek((column_start + self._written) * WORD.itemsize)
            self._file.write(_data(words))
        self._checksum.add(piece)
        self._written += len(piece)

    def finish(self, slice: Slice) -> RunFacts:
        """Sync and rename. -> what the manifest has to say."""
        if self._written != self._keys:
            raise ValueError(f"{self.path}: {self._keys} keys announced, {self._written} written")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temp.rename(self.path)
        checksum = self._checksum
        return RunFacts(self.path.name, self._keys, checksum.high, checksum.low, *slice)

    def abandon(self) -> None:
        self._file.close()
        self._temp.unlink(missing_ok=True)


def _data(words: Words) -> memoryview:
    return np.ascontiguousarray(words, WORD).data.cast("B")
