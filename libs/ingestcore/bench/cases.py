"""Inputs of the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from ingestcore.datasets.spec import DatasetSpec
from ingestcore.testing.generate import Kind, Rows


class Case(StrEnum):
    """What the rows look like."""

    TYPICAL = "typical"
    TINY = "tiny rows"
    WIDE = "500 columns"
    LONG = "long strings"
    REPEATED = "all repeats"
    UNIQUE = "all unique"
    CLEAN = "no bad rows"


@dataclass(frozen=True, slots=True)
class _Made:
    kind: Kind
    duplicates: float = 0.05
    bad: float = 0.0001


_CASES: Final = {
    Case.TYPICAL: _Made(Kind.NARROW),
    Case.TINY: _Made(Kind.TINY),
    Case.WIDE: _Made(Kind.WIDE),
    Case.LONG: _Made(Kind.LONG),
    Case.REPEATED: _Made(Kind.NARROW, duplicates=1.0),
    Case.UNIQUE: _Made(Kind.NARROW, duplicates=0.0),
    Case.CLEAN: _Made(Kind.NARROW, bad=0.0),
}


@dataclass(frozen=True)
class Input:
    """A generated file. `dataset`: the rows' spec; `distinct`: rows that must be published."""

    case: Case
    path: Path
    nbytes: int
    rows: int
    distinct: int
    written: Mapping[str, Any]
    """The spec as an operator writes it."""

    @property
    def dataset(self) -> DatasetSpec:
        return DatasetSpec.model_validate(self.written)


def make_input(case: Case, folder: Path, megabytes: float, seed: int = 0) -> Input:
    """Write the case's file of about so many MB (10^6 bytes)."""
    made = _CASES[case]
    folder.mkdir(parents=True, exist_ok=True)
    rows = Rows(seed=seed, duplicates=made.duplicates, bad=made.bad, kind=made.kind)
    path = folder / f"{case.name.lower()}.csv"
    truth = rows.write(path, max(1, round(megabytes * 1e6 / rows.row_bytes())))
    return Input(case, path, truth.nbytes, truth.rows, truth.fresh, rows.shape.spec)
