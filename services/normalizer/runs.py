"""Sorted runs of committed keys on disk, one folder per partition. All file handling of the normalizer is here.

A folder holds `manifest.json` and `run-<number>.keys`: all high words ascending, then the low words in the same order
(little endian). A run is written under a temporary name, synced and renamed before a manifest names it, and deleted
only after a manifest no longer does: a crash leaves the old set or the new one, and stray files, which opening
removes. The manifest carries a stamp; a folder whose stamp or checksums do not fit is worth nothing and is emptied.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from services.normalizer.keys import KEY_BYTES, WORD, Keys, SortedKeys, Words

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
PIECE_KEYS: Final = 1 << 20
"""Keys handled at a time when a run is read from end to end."""


class Unfit(Exception):
    """The folder is not the state asked for: damaged, or of another topic or partition count."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Whose keys these are. A recreated changelog has another topic id; another partition count moves keys."""

    topic_id: str
    partition: int
    partitions: int


@dataclass(frozen=True, slots=True)
class Times:
    """First and last broker time (milliseconds) of the records that brought the keys of a run; 0: unknown."""

    first_ms: int = 0
    last_ms: int = 0

    def with_(self, other: Times) -> Times:
        known = [ms for ms in (self.first_ms, self.last_ms, other.first_ms, other.last_ms) if ms]
        return Times(min(known), max(known)) if known else Times()


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the manifest says of one run. Checksums are CRC-32 of the two columns."""

    name: str
    keys: int
    crc_high: int
    crc_low: int
    first_ms: int
    last_ms: int


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
    def times(self) -> Times:
        return Times(self.facts.first_ms, self.facts.last_ms)

    def read(self) -> Iterator[Keys]:
        """The keys in order, a piece at a time, checked on the way. Raises Unfit at the end: wrong checksum."""
        crc_high = crc_low = 0
        for start in range(0, len(self.keys), PIECE_KEYS):
            piece = slice(start, start + PIECE_KEYS)
            high, low = self.keys.high[piece], self.keys.low[piece]
            crc_high, crc_low = zlib.crc32(high.data, crc_high), zlib.crc32(low.data, crc_low)
            yield Keys(high, low)
            self.release()
        if (crc_high, crc_low) != (self.facts.crc_high, self.facts.crc_low):
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
        self._crc_high = self._crc_low = 0

    def write(self, piece: SortedKeys) -> None:
        self._crc_high = self._column(0, piece.high, self._crc_high)
        self._crc_low = self._column(self._keys, piece.low, self._crc_low)
        self._written += len(piece)

    def finish(self, times: Times) -> RunFacts:
        """Sync and rename. -> what the manifest has to say."""
        if self._written != self._keys:
            raise ValueError(f"{self.path}: {self._keys} keys announced, {self._written} written")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temp.rename(self.path)
        return RunFacts(self.path.name, self._keys, self._crc_high, self._crc_low, times.first_ms, times.last_ms)

    def abandon(self) -> None:
        self._file.close()
        self._temp.unlink(missing_ok=True)

    def _column(self, column_start: int, words: Words, crc: int) -> int:
        data = np.ascontiguousarray(words, WORD).data.cast("B")
        self._file.seek((column_start + self._written) * WORD.itemsize)
        self._file.write(data)
        return zlib.crc32(data, crc)


class RunFolder:
    """The runs of one partition. `complete_to`: every key committed to the changelog below this offset is in them;
    None: nothing is known. Methods that write may raise OSError and leave the folder as it was."""

    def __init__(self, path: Path, stamp: Stamp) -> None:
        """Open an empty folder; what it held is deleted. `load` opens a filled one."""
        path.mkdir(parents=True, exist_ok=True)
        self.path, self.stamp = path, stamp
        self.runs: list[Run] = []
        self.complete_to: int | None = None
        self._next = 1
        self._sweep(set())

    @classmethod
    def load(cls, path: Path, stamp: Stamp) -> RunFolder | None:
        """-> the folder's state; None: there is none. Raises Unfit: what there is can't be used."""
        try:
            stored = (path / MANIFEST).read_bytes()
        except FileNotFoundError:
            return None
        manifest = _decode(path / MANIFEST, stored)
        if manifest["stamp"] != asdict(stamp):
            raise Unfit(f"{path} belongs to {manifest['stamp']}, wanted is {asdict(stamp)}")
        folder = cls.__new__(cls)
        folder.path, folder.stamp = path, stamp
        folder.runs = [Run(path, RunFacts(**facts)) for facts in manifest["runs"]]
        folder.complete_to, folder._next = manifest["complete_to"], manifest["next"]
        folder._sweep({MANIFEST, *(run.facts.name for run in folder.runs)})
        return folder

    def __len__(self) -> int:
        return sum(len(run.keys) for run in self.runs)

    def add(self, keys: SortedKeys, times: Times, complete_to: int | None) -> None:
        """Add a run (none for no keys) and move the stamp."""
        runs = list(self.runs)
        if len(keys):
            writer = self.writer(len(keys))
            try:
                writer.write(keys)
                runs.append(Run(self.path, writer.finish(times)))
            except BaseException:
                writer.abandon()
                raise
        self._publish(runs, complete_to)

    def writer(self, keys: int) -> RunWriter:
        """-> a writer of a new run, which `replace` will name."""
        number, self._next = self._next, self._next + 1
        return RunWriter(self.path / f"run-{number:08}.keys", keys)

    def replace(self, old: list[Run], facts: RunFacts) -> None:
        """One merged run takes the place of its sources."""
        self._publish([run for run in self.runs if run not in old] + [Run(self.path, facts)], self.complete_to)
        for run in old:
            run.path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget everything."""
        (self.path / MANIFEST).unlink(missing_ok=True)
        self.runs, self.complete_to = [], None
        self._sweep(set())

    def _publish(self, runs: list[Run], complete_to: int | None) -> None:
        _sync_folder(self.path)
        body = {
            "stamp": asdict(self.stamp),
            "complete_to": complete_to,
            "next": self._next,
            "runs": [asdict(run.facts) for run in runs],
        }
        _replace(self.path / MANIFEST, _encode(body))
        self.runs, self.complete_to = runs, complete_to

    def _sweep(self, kept: set[str]) -> None:
        """Delete what the state does not name."""
        for file in self.path.iterdir():
            if file.name not in kept:
                file.unlink()


def _encode(body: dict[str, Any]) -> bytes:
    text = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return orjson.dumps({"format": FORMAT, "sha256": hashlib.sha256(text).hexdigest(), "body": body})


def _decode(path: Path, stored: bytes) -> dict[str, Any]:
    """Raises Unfit."""
    try:
        document = orjson.loads(stored)
        body: dict[str, Any] = document["body"]
        text = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        if document["format"] != FORMAT:
            raise Unfit(f"{path} has format {document['format']}, this version reads {FORMAT}")
        if document["sha256"] != hashlib.sha256(text).hexdigest():
            raise Unfit(f"{path} is damaged: its checksum does not fit")
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise Unfit(f"{path} is damaged: {error!r}") from error
    return body


def _replace(path: Path, data: bytes) -> None:
    temp = path.with_name(path.name + ".tmp")
    with temp.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temp.rename(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
