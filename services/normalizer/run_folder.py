"""The runs of one partition: a folder with a manifest that names them and a stamp that says whose they are.

A manifest names a run only when the run's file is complete, and a file is deleted only when no manifest names it any
more: a crash leaves the old set or the new one, and stray files, which opening removes. A folder whose stamp or
checksums do not fit is worth nothing. Only one process may use a folder; the runtime's lock sees to that.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from services.normalizer.keys import SortedKeys
from services.normalizer.runs import Run, RunFacts, RunWriter, Times, Unfit

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class Stamp:
    """Whose keys these are. A recreated changelog has another topic id; another partition count moves keys."""

    topic_id: str
    partition: int
    partitions: int


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
