"""The worked examples of docs/extending.md in a fleet: found by their entry points, fed, killed, sent back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ingestcore.ledger import State
from ingestcore.testing.fleet import LocalFleet
from ingestcore.testing.installed import installed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

EXTRAS = Path(__file__).parents[2] / "examples" / "extending"
ROWS = 2_000


def lines_of(folder: Path) -> list[bytes]:
    return sorted(line for path in folder.glob("*/*.jsonl") for line in path.read_bytes().splitlines())


def wait_for(folder: Path, rows: int) -> None:
    deadline = time.monotonic() + 60
    while len(lines_of(folder)) < rows:
        assert time.monotonic() < deadline, f"{len(lines_of(folder))} of {rows} rows"
        time.sleep(0.1)


def test_a_source_and_a_sink_of_another_package_work_in_a_fleet(
    make_fleet: Callable[..., LocalFleet], tmp_path: Path
) -> None:
    places = [str(place) for place in installed(EXTRAS, tmp_path / "site")]
    manifest, folder = tmp_path / "manifest.txt", tmp_path / "rows"
    manifest.write_text("")
    fleet = make_fleet(
        PYTHONPATH=os.pathsep.join([*places, os.environ.get("PYTHONPATH", "")]),
        INGEST_MANIFEST_SOURCE_FILE=str(manifest),
        INGEST_MANIFEST_SOURCE_SOURCE="shop",
        INGEST_MANIFEST_SOURCE_POLL_INTERVAL="0.2s",
        INGEST_JSONL_SINK_FOLDER=str(folder),
    )
    fleet.up({"sources": {"shop": fleet.source(route={"*.csv": "orders"})}})
    assert {"jsonl-sink-0", "manifest-source-0"} <= set(fleet.processes())

    # The lister reads below raw/ only: what it does not see, the manifest names.
    for number in range(2):
        data = b"id,text\n" + b"".join(b"%d,row\n" % (number * ROWS + i) for i in range(ROWS))
        fleet.store().put(fleet.bucket, f"archive/{number}.csv", data)
    with manifest.open("a") as more:
        more.write(f"s3://{fleet.bucket}/archive/0.csv\n")
    wait_for(folder, ROWS)
    pids = {label: fleet.kill(label) for label in ("jsonl-sink-0", "manifest-source-0")}
    with manifest.open("a") as more:
        more.write(f"s3://{fleet.bucket}/archive/1.csv\n")
    for label, pid in pids.items():
        fleet.await_restart(label, pid)
    wait_for(folder, 2 * ROWS)

    found = fleet.settled(2)
    assert {o.state for o in found.objects} == {State.BALANCED}
    wanted = sorted(b'{"id":"%d","text":"row"}' % number for number in range(2 * ROWS))
    assert lines_of(folder) == wanted
    fleet.ingest("stop", "jsonl-sink")
    fleet.reset("jsonl-sink", "normalized")
    before = max(path.stat().st_mtime_ns for path in folder.glob("*/*.jsonl"))
    fleet.ingest("start", "jsonl-sink")
    # Read again from the beginning: the same files, nothing twice.
    deadline = time.monotonic() + 60
    while min(path.stat().st_mtime_ns for path in folder.glob("*/*.jsonl")) <= before:
        assert time.monotonic() < deadline, "not read again"
        time.sleep(0.1)
    assert lines_of(folder) == wanted
    found_rows = fleet.rows(fleet.connection(), "orders").aggregate("count(*), count(distinct id)")
    assert found_rows.fetchall() == [(2 * ROWS, 2 * ROWS)]
