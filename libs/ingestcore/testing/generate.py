"""CSV files with known truth: so many distinct rows, so many exact repeats, these bad rows at these places.

Deterministic by seed, written in chunks, nothing kept but the bad rows. Also a command:
`python -m ingestcore.testing.generate orders.csv --megabytes 200 --expected expected.parquet`.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import numpy as np
import orjson
import pyarrow.parquet as pq
import typer
from numpy.typing import NDArray

from ingestcore.datasets.spec import DatasetSpec
from ingestcore.testing.shapes import BadKind, Long, Narrow, Shape, Tiny, Wide, dataset_of

FIRST_ID: Final = 1_000_000_000
_BAD_IDS: Final = 9_000_000_000
"""Ids of bad rows: never those of a good one."""
_SAMPLE_ROWS: Final = 1_000
_ROOM_BYTES: Final = 24
"""A bad row may be this much longer than the longest good one."""


class Kind(StrEnum):
    """NARROW: six columns; CRLF: the same with CRLF line ends; TRICKY: newlines in quotes, stray quotes; WIDE: 500
    columns; TINY: two columns, 20 bytes; LONG: two columns, one of 4 kB."""

    NARROW = "narrow"
    CRLF = "crlf"
    TRICKY = "tricky"
    WIDE = "wide"
    TINY = "tiny"
    LONG = "long"


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that must become a dead letter.

    row     1-based number of the record after the header
    raw     its bytes, without the line end
    column  the column at fault; "": the row as a whole
    """

    row: int
    raw: bytes
    kind: BadKind
    column: str


@dataclass(frozen=True, slots=True)
class Truth:
    """What is in a file.

    rows        records after the header: good ones, repeats and bad ones
    fresh       rows with an id that no earlier row had (of the same `Rows`): what must be published
    duplicates  exact repeats of earlier good rows
    """

    path: Path
    nbytes: int
    rows: int
    fresh: int
    duplicates: int
    bad: tuple[BadRow, ...]

    def as_dict(self) -> dict[str, Any]:
        bad = [{"row": b.row, "raw": b.raw.hex(), "kind": b.kind.value, "column": b.column} for b in self.bad]
        counts = {"nbytes": self.nbytes, "rows": self.rows, "fresh": self.fresh, "duplicates": self.duplicates}
        return {"path": str(self.path), **counts, "bad": bad}


class Rows:
    """A stream of rows, written to one or many files; repeats may be of rows in earlier files.

    duplicates  share of rows that repeat an earlier one; bad: share of broken rows
    expected    a Parquet file of all distinct good rows, typed: what must come out in the end
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        duplicates: float = 0.05,
        bad: float = 0.0001,
        kind: Kind = Kind.NARROW,
        expected: Path | None = None,
    ) -> None:
        self.shape = _shape(kind, seed)
        self._line_end = b"\r\n" if kind is Kind.CRLF else b"\n"
        self._draw = np.random.default_rng(seed)
        self._duplicates, self._bad = duplicates, bad
        self._fresh = self._broken = 0
        self._expected = pq.ParquetWriter(expected, self.shape.table(_ids(0)).schema) if expected else None

    @property
    def spec(self) -> DatasetSpec:
        return dataset_of(self.shape)

    @property
    def fresh(self) -> int:
        """Distinct good rows so far."""
        return self._fresh

    def row_bytes(self) -> float:
        """-> mean length of a row with its line end."""
        text = self.shape.render(_ids(_SAMPLE_ROWS))
        return float(np.count_nonzero(text)) / _SAMPLE_ROWS + len(self._line_end)

    def write(self, path: Path, rows: int, on_progress: Callable[[int], None] | None = None) -> Truth:
        """Write one file (gzip when its name ends with .gz); `on_progress` is told the bytes written since last."""
        before = self._fresh
        places = self._places(rows)
        bad: list[BadRow] = []
        with _opened(path) as file:
            nbytes = file.write(",".join(self.shape.columns).encode() + self._line_end)
            for first in range(0, rows, self.shape.chunk_rows):
                size = min(self.shape.chunk_rows, rows - first)
                here = places[(places >= first) & (places < first + size)] - first
                broken = [self._break(first + int(at) + 1) for at in here]
                bad += broken
                written = file.write(self._chunk(size, here, broken))
                nbytes += written
                if on_progress:
                    on_progress(written)
        fresh = self._fresh - before
        return Truth(path, nbytes, rows, fresh, rows - fresh - len(bad), tuple(bad))

    def close(self) -> None:
        """Finish the file of expected rows."""
        if self._expected:
            self._expected.close()

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _places(self, rows: int) -> NDArray[np.int64]:
        """-> 0-based numbers of the bad rows, ascending; in a file of some size each way to break a row occurs."""
        wanted = round(rows * self._bad)
        if self._bad and rows >= 1000:
            wanted = max(wanted, len(self.shape.breaks))
        return np.sort(self._draw.choice(rows, wanted, replace=False)) if wanted else np.empty(0, np.int64)

    def _break(self, row: int) -> BadRow:
        kind, column = self.shape.breaks[self._broken % len(self.shape.breaks)]
        self._broken += 1
        return BadRow(row, self.shape.broken(_BAD_IDS + self._broken, kind, column), kind, column)

    def _chunk(self, size: int, places: NDArray[np.int64], broken: list[BadRow]) -> bytes:
        """-> the next rows of the file; counts and keeps what is new in them."""
        repeats = self._draw.random(size) < self._duplicates
        repeats[places] = False
        fresh = ~repeats
        fresh[places] = False
        if not self._fresh:
            # There is nothing to repeat before the first good row.
            first = int(np.argmax(fresh | repeats))
            fresh[first], repeats[first] = first not in places, False
        # A row may repeat any row before it: those of this chunk too.
        known = self._fresh + np.cumsum(fresh) - fresh
        ids = np.empty(size, np.uint64)
        new = _ids(int(fresh.sum()), self._fresh)
        ids[fresh] = new
        ids[repeats] = (self._draw.random(int(repeats.sum())) * known[repeats]).astype(np.uint64) + np.uint64(FIRST_ID)
        ids[places] = _BAD_IDS
        self._fresh += len(new)
        if self._expected and len(new):
            self._expected.write_table(self.shape.table(new))
        return self._text(ids, places, broken)

    def _text(self, ids: NDArray[np.uint64], places: NDArray[np.int64], broken: list[BadRow]) -> bytes:
        rendered = self.shape.render(ids)
        width = rendered.shape[1]
        text = np.zeros((len(ids), width + _ROOM_BYTES + len(self._line_end)), np.uint8)
        text[:, :width] = rendered
        text[:, -len(self._line_end) :] = np.frombuffer(self._line_end, np.uint8)
        for at, row in zip(places, broken, strict=True):
            text[at, : width + _ROOM_BYTES] = 0
            text[at, : len(row.raw)] = np.frombuffer(row.raw, np.uint8)
        return text.tobytes().translate(None, b"\0")


def _shape(kind: Kind, seed: int) -> Shape:
    match kind:
        case Kind.WIDE:
            return Wide(seed)
        case Kind.TINY:
            return Tiny(seed)
        case Kind.LONG:
            return Long(seed)
    return Narrow(seed, tricky=kind is Kind.TRICKY)


def generate(
    path: Path,
    *,
    megabytes: float,
    seed: int = 0,
    duplicates: float = 0.05,
    bad: float = 0.0001,
    kind: Kind = Kind.NARROW,
    expected: Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Truth:
    """Write one file of about that many MB (10^6 bytes, before compression); see `Rows`."""
    with Rows(seed=seed, duplicates=duplicates, bad=bad, kind=kind, expected=expected) as rows:
        return rows.write(path, max(1, round(megabytes * 1e6 / rows.row_bytes())), on_progress)


def generate_objects(
    folder: Path,
    *,
    objects: int,
    rows_each: int,
    seed: int = 0,
    duplicates: float = 0.05,
    bad: float = 0.0001,
    kind: Kind = Kind.NARROW,
    expected: Path | None = None,
) -> list[Truth]:
    """Write many small files `part-000000.csv` …; rows may repeat rows of earlier files."""
    folder.mkdir(parents=True, exist_ok=True)
    with Rows(seed=seed, duplicates=duplicates, bad=bad, kind=kind, expected=expected) as rows:
        return [rows.write(folder / f"part-{n:06}.csv", rows_each) for n in range(objects)]


def _ids(count: int, start: int = 0) -> NDArray[np.uint64]:
    return np.arange(FIRST_ID + start, FIRST_ID + start + count, dtype=np.uint64)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        if path.suffix == ".gz":
            # No time stamp in it: the same seed gives the same bytes.
            plain = stack.enter_context(path.open("wb"))
            yield stack.enter_context(gzip.GzipFile("", "wb", 1, plain, mtime=0))  # type: ignore[misc]
        else:
            yield stack.enter_context(path.open("wb"))


def main(
    path: Annotated[Path, typer.Argument(help="File to write; .gz is compressed")],
    megabytes: Annotated[float, typer.Option(help="About how large, in MB before compression")] = 200,
    seed: int = 0,
    duplicates: Annotated[float, typer.Option(help="Share of rows that repeat an earlier one")] = 0.05,
    bad: Annotated[float, typer.Option(help="Share of broken rows")] = 0.0001,
    kind: Kind = Kind.NARROW,
    expected: Annotated[Path | None, typer.Option(help="Also write the distinct good rows as Parquet")] = None,
    truth: Annotated[Path | None, typer.Option(help="Also write counts and bad rows as JSON")] = None,
) -> None:
    """Write a CSV file whose distinct rows, repeats and bad rows are known."""
    found = generate(path, megabytes=megabytes, seed=seed, duplicates=duplicates, bad=bad, kind=kind, expected=expected)
    if truth:
        truth.write_bytes(orjson.dumps(found.as_dict(), option=orjson.OPT_INDENT_2))
    typer.echo(
        f"{found.path}: {found.nbytes:,} bytes, {found.rows:,} rows: {found.fresh:,} distinct, "
        f"{found.duplicates:,} repeats, {len(found.bad):,} bad"
    )


if __name__ == "__main__":
    typer.run(main)
