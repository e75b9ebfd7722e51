"""Objects of known content for a fleet under faults: several sources and datasets, plain and gzip, small and large."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

from ingestcore.cli.looking.completeness import Watch
from ingestcore.ledger import State
from ingestcore.testing import lake
from ingestcore.testing.fleet import LocalFleet
from ingestcore.testing.generate import FIRST_ID, Kind, Rows, Truth

_SPARES: Final = "spares"
_SPARE_MEGABYTES: Final = 0.7
_KINDS: Final = {"orders": Kind.NARROW, "remarks": Kind.TRICKY, _SPARES: Kind.NARROW}
"""Datasets, and what their rows are like. Spares are small objects, sent where a service must have something to do."""
_SHARES: Final = {"orders": 0.75, "remarks": 0.25}
_SOURCES: Final = ("north", "south")
_LARGE_SHARE: Final = 0.2
"""Of a dataset's bytes in its first object, so that there is one whose reading is interrupted many times."""
_BAD: Final = 0.0005
_SETTLE_SECONDS: Final = 900.0


@dataclass(frozen=True, slots=True)
class Piece:
    """One object. fresh: distinct rows of its dataset up to and with this one."""

    dataset: str
    key: str
    truth: Truth
    fresh: int


class Load:
    """Generated ahead; handed to a fleet piece by piece. `sent` are the pieces it has got.

    megabytes  in so many `pieces`; besides them there are `spares`
    """

    def __init__(self, folder: Path, *, megabytes: float, pieces: int, spares: int, seed: int) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.sent: list[Piece] = []
        made = []
        for dataset, share in _SHARES.items():
            count = max(2, round(pieces * share))
            parts = [_LARGE_SHARE] + [(1 - _LARGE_SHARE) / (count - 1)] * (count - 1)
            made.append(list(self._generate(dataset, [megabytes * share * part for part in parts], seed)))
        self._waiting = list(_interleaved(made, random.Random(seed)))
        self._spares = list(self._generate(_SPARES, [_SPARE_MEGABYTES] * spares, seed))

    def _generate(self, dataset: str, megabytes: Sequence[float], seed: int) -> Iterator[Piece]:
        with Rows(seed=seed, kind=_KINDS[dataset], bad=_BAD, expected=self._expected(dataset)) as rows:
            for number, size in enumerate(megabytes):
                name = f"{dataset}-{number:04}.csv" + (".gz" if number % 3 == 1 else "")
                truth = rows.write(self._folder / name, max(1, round(size * 1e6 / rows.row_bytes())))
                yield Piece(dataset, f"{_SOURCES[number % len(_SOURCES)]}/{name}", truth, rows.fresh)

    def _expected(self, dataset: str) -> Path:
        return self._folder / f"{dataset}.parquet"

    def config(self, fleet: LocalFleet) -> dict[str, Any]:
        """-> sources and datasets for `ingest up`."""
        route = {f"{name}-*": name for name in _KINDS}
        sources = {}
        for name in _SOURCES:
            spec = fleet.source(route=route)
            sources[f"{fleet.name}-{name}"] = {**spec, "s3": {**spec["s3"], "prefix": f"raw/{name}/"}}
        datasets = {name: Rows(kind=kind).shape.spec for name, kind in _KINDS.items()}
        return {"sources": sources, "datasets": datasets}

    @property
    def left(self) -> int:
        """Pieces not sent yet."""
        return len(self._waiting)

    @property
    def nbytes(self) -> int:
        """Bytes sent, before compression."""
        return sum(piece.truth.nbytes for piece in self.sent)

    def send(self, fleet: LocalFleet) -> None:
        """Upload the next piece, if there is one."""
        self._send_first_of(self._waiting, fleet)

    def send_spare(self, fleet: LocalFleet) -> bool:
        """Upload a small one. -> was there any left?"""
        return self._send_first_of(self._spares, fleet)

    def _send_first_of(self, pieces: list[Piece], fleet: LocalFleet) -> bool:
        """A dataset's pieces go in their order: what must be in the lake are then the first rows of what it has."""
        if not pieces:
            return False
        piece = pieces.pop(0)
        fleet.upload(piece.key, piece.truth.path)
        self.sent.append(piece)
        piece.truth.path.unlink()
        return True

    def check(self, fleet: LocalFleet, connection: duckdb.DuckDBPyConnection) -> int:
        """All that was sent is in the lake exactly once, every bad row is a dead letter once, the ledger balances.

        connection  reads the lake
        -> rows that services were given again. Raises AssertionError.
        """
        fleet.quiet(_SETTLE_SECONDS)
        replayed = self._check_ledger(fleet)
        # What the lister had not listed a moment ago is on its way: the ledger waited for its rows, not for the sinks.
        fleet.quiet(_SETTLE_SECONDS)
        self._check_letters(fleet, connection)
        for dataset in _KINDS:
            self._check_rows(fleet, connection, dataset)
        return replayed

    def _check_ledger(self, fleet: LocalFleet) -> int:
        # A watch of its own: a topic may have been made anew since the last one.
        found = Watch(fleet.platform()).wait(len(self.sent), timeout_seconds=_SETTLE_SECONDS).objects
        wrong = [o for o in found if o.state is not State.BALANCED]
        assert not wrong, f"{len(wrong)} of {len(found)} objects: {wrong[:3]}"
        read = {o.origin.uri.partition("/raw/")[2]: (o.read, o.dead) for o in found}
        assert read == {p.key: (p.truth.rows, len(p.truth.bad)) for p in self.sent}
        fresh = sum(piece.truth.fresh for piece in self.sent)
        assert sum(o.published for o in found) == fresh, "the ledger's count of published rows is not the load's"
        return sum(o.replayed for o in found)

    def _check_letters(self, fleet: LocalFleet, connection: duckdb.DuckDBPyConnection) -> None:
        want = Counter((piece.key, bad.row, bad.raw) for piece in self.sent for bad in piece.truth.bad)
        letters = fleet.letters(connection, ("object_uri", "row", "raw")) if want else []
        found = Counter((uri.partition("/raw/")[2], row, bytes(raw).rstrip(b"\r\n")) for uri, row, raw in letters)
        assert found == want, (
            f"missing letters: {(want - found).most_common(3)}; extra: {(found - want).most_common(3)}"
        )

    def _check_rows(self, fleet: LocalFleet, connection: duckdb.DuckDBPyConnection, dataset: str) -> None:
        fresh = max((piece.fresh for piece in self.sent if piece.dataset == dataset), default=0)
        if not fresh:
            return
        columns = Rows(kind=_KINDS[dataset]).shape.columns
        found = fleet.rows(connection, dataset)
        want = lake.expected_rows(connection, self._expected(dataset)).filter(f"id < {FIRST_ID + fresh}")
        if lake.fingerprint(found, columns) != lake.fingerprint(want, columns):
            extra, missing = lake.differences(connection, found, want, columns)
            raise AssertionError(f"{dataset}: rows doubled or foreign: {extra}; rows missing: {missing}")


def _interleaved(made: list[list[Piece]], draw: random.Random) -> Iterator[Piece]:
    """-> the pieces of all datasets in a random order that keeps each dataset's own."""
    made = [list(pieces) for pieces in made]
    while any(made):
        chosen = draw.choices(made, [len(pieces) for pieces in made])[0]
        yield chosen.pop(0)
