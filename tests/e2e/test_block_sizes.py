"""Rows, row numbers and dead letters do not depend on how an object is cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ingestcore.ledger import State
from ingestcore.testing import lake
from ingestcore.testing.fleet import LocalFleet
from ingestcore.testing.generate import Kind, Rows, generate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("chunk", "block"),
    [
        ("64KiB", "64KiB"),
        pytest.param("1MiB", "256KiB", marks=pytest.mark.long),
        pytest.param("64KiB", "8MiB", marks=pytest.mark.long),
        ("32MiB", "32MiB"),
    ],
)
def test_the_same_rows_whatever_the_sizes(
    make_fleet: Callable[..., LocalFleet], tmp_path: Path, chunk: str, block: str
) -> None:
    fleet = make_fleet(
        INGEST_CHUNK_DOWNLOADER_CHUNK_SIZE=chunk,
        INGEST_CHUNK_DOWNLOADER_BLOCK_BYTES=block,
        INGEST_CHUNK_DOWNLOADER_OBJECTS="2",
    )
    names = ("plain", "awkward", "zipped")
    source = fleet.source(route={f"{name}/*": name for name in names})
    fleet.up({"sources": {fleet.name: source}, "datasets": dict.fromkeys(names, Rows().shape.spec)})
    wanted = {}
    for name, kind in zip(names, (Kind.NARROW, Kind.TRICKY, Kind.CRLF), strict=True):
        path = tmp_path / f"{name}.csv{'.gz' if name == 'zipped' else ''}"
        wanted[name] = generate(path, megabytes=10, seed=5, kind=kind, bad=0.001, expected=tmp_path / f"{name}.parquet")
        fleet.upload(f"{name}/{path.name}", path)
    found = fleet.settled(len(names)).objects
    fleet.quiet()
    assert {o.state for o in found} == {State.BALANCED}
    connection = fleet.connection()
    letters = fleet.letters(connection, ("dataset", "row", "raw"))
    for name, truth in wanted.items():
        rows, want = fleet.rows(connection, name), lake.expected_rows(connection, tmp_path / f"{name}.parquet")
        assert lake.differences(connection, rows, want, Rows().shape.columns) == ([], [])
        bad = Counter((row, bytes(raw).rstrip(b"\r\n")) for dataset, row, raw in letters if dataset == name)
        assert bad == Counter((row.row, row.raw) for row in truth.bad)
    fleet.down()
