"""The runs of one partition: a folder with a manifest that names them and a stamp that says whose they are.

A manifest names a run only when the run's file is complete, and a file is deleted only when no manifest names it any
more: a crash leaves the old set or the new one, and stray files, which opening removes. A folder whose stamp or
checksums do not fit is worth nothing. Only one process may use a folder; the runtime's lock sees to that.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from services.normalizer.keys import SortedKeys
from services.normalizer.runs import Run, RunFacts, RunWriter, Unfit
from services.normalizer.slices import Slice

FORMAT: Final = 2
MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class Stamp:
    """Whose keys these are. A recreated changelog has another topic id; another partition count moves keys."""

    topic_id: str
    partition: int
    partitions: int


class RunFolder:
    """The runs of one partition. Methods that write may raise OSError and leave the folder as it was.

    complete_to  every key committed to the changelog below this offset is in them, but for those that had expired;
                 None: nothing is known
    clock_ms     the partition's clock when it was written
    """

    def __init__(self, path: Path, stamp: Stamp) -> None:
        """Open an empty folder; what it held is deleted. `load` opens a filled one."""
        path.mkdir(parents=True, exist_ok=True)
        self.path, self.stamp = path, stamp
        self.runs: list[Run] = []
        self.complete_to: int | None = None
        self.clock_ms = 0
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
        folder.complete_to, folder.clock_ms = manifest["complete_to"], manifest["clock_ms"]
        folder._next = manifest["next"]
        folder._sweep({MANIFEST, *(run.facts.name for run in folder.runs)})
        return folder

    def __len__(self) -> int:
        return sum(len(run.keys) for run in self.runs)

    def add(self, parts: Mapping[Slice, SortedKeys], complete_to: int | None, clock_ms: int) -> None:
        """Add a run for each slice and move the stamp."""
        runs = list(self.runs)
        for slice, keys in parts.items():
            writer = self.writer(len(keys))
            try:
                writer.write(keys)
                runs.append(Run(self.path, writer.finish(slice)))
            except BaseException:
                writer.abandon()
                raise
        self._publish(runs, complete_to, clock_ms)

    def writer(self, keys: int) -> RunWriter:
        """-> a writer of a new run, which `replace` will name."""
        number, self._next = self._next, self._next + 1
        return RunWriter(self.path / f"run-{number:08}.keys", keys)

    def replace(self, old: list[Run], facts: RunFacts) -> None:
        """One merged run takes the place of its sources."""
        self._exchange(old, [Run(self.path, facts)])

    def drop(self, old: list[Run]) -> None:
        """Forget runs whose keys have expired."""
        self._exchange(old, [])

    def _exchange(self, old: list[Run], new: list[Run]) -> None:
        self._publish([run for run in self.runs if run not in old] + new, self.complete_to, self.clock_ms)
        for run in old:
            run.path.unlink(missing_ok=True)

    def _publish(self, runs: list[Run], complete_to: int | None, clock_ms: int) -> None:
        _sync_folder(self.path)
        body = {
            "stamp": asdict(self.stamp),
            "complete_to": complete_to,
            "clock_ms": clock_ms,
            "next": self._next,
            "runs": [asdict(run.facts) for run in runs],
        }
        _replace(self.path / MANIFEST, _encode(body))
        self.runs, self.complete_to, self.clock_ms = runs, complete_to, clock_ms

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
