"""Ten million keys: memory stays flat and every difference is found. Each case runs in a process of its own."""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

ENTRIES = 10_000_000
LIMIT_MIB = 200
RATE = 100_000
"""Entries a CPU-second at least, on the slowest machine this may run on; the merge alone does several times that."""

pytestmark = pytest.mark.long


def key_of(number: int) -> str:
    return f"raw/{number // 100_000:04}/export-{number:09}.csv"


def etag_of(number: int, version: int = 1) -> str:
    return f"{number * 2654435761 + version:032x}"


NEW, CHANGED, GONE = 1_000, 7_001, 9_001
"""Every so many-th key is new, has changed or is gone since the snapshot."""


def expected(entries: int) -> dict[str, int]:
    """The differences, counted from their definition."""
    special = {*range(0, entries, NEW), *range(0, entries, CHANGED), *range(0, entries, GONE)}
    return Counter(map(kind_of, special))


def kind_of(number: int) -> str:
    if number % NEW == 0:
        return "new"
    if number % GONE == 0:
        return "gone"
    return "changed" if number % CHANGED == 0 else "same"


def listing(entries: int) -> Iterator[object]:
    from ingestcore.stores.objects import Listed

    for number in range(entries):
        kind = kind_of(number)
        if kind != "gone":
            yield Listed(key_of(number), etag_of(number, 2 if kind == "changed" else 1), 10, "2025-01-01T00:00:00Z")


def snapshot(entries: int) -> Iterator[object]:
    from services.s3_lister.stage import Seen

    for number in range(entries):
        if kind_of(number) != "new":
            yield Seen(key_of(number), etag_of(number), "exports")


def merge_alone(folder: Path) -> dict[str, int]:
    from services.s3_lister.stage import Verdict, merge

    told: Counter[Verdict] = Counter()
    for change in merge(listing(ENTRIES), snapshot(ENTRIES), lambda key: "exports"):  # type: ignore[arg-type]
        told[change.verdict] += 1
    names = {Verdict.NEW: "new", Verdict.CHANGED: "changed", Verdict.MISSING: "gone"}
    return {names[verdict]: number for verdict, number in told.items() if verdict in names}


class Folder:
    """The store of a scan: the listing is generated, snapshot parts are files."""

    def __init__(self, folder: Path, shuffled: bool) -> None:
        self._folder, self._shuffled = folder, shuffled

    def list(self, bucket: str, prefix: str, start_after: str = "") -> Iterator[object]:
        if bucket != "lake":
            return iter(())
        if not self._shuffled:
            return listing(ENTRIES)
        half = ENTRIES // 2
        entries = listing(ENTRIES)
        return itertools.chain(itertools.islice(listing(ENTRIES), half, None), itertools.islice(entries, half))

    def put(self, bucket: str, key: str, data: bytes) -> None:
        (self._folder / key.replace("/", "~")).write_bytes(data)

    def get(self, bucket: str, key: str) -> bytes:
        return (self._folder / key.replace("/", "~")).read_bytes()


def whole_scan(folder: Path, shuffled: bool = False) -> dict[str, int]:
    """The lister's own scan with its snapshot in files, from the listing to the parts of the next snapshot."""
    from ingestcore.datasets.spec import SourceSpec
    from services.s3_lister.scan import Scan
    from services.s3_lister.settings import ListerSettings
    from services.s3_lister.snapshot import Part, Snapshot, write_out
    from services.s3_lister.snapshot_store import SnapshotStore
    from services.s3_lister.stage import NOTHING

    store = Folder(folder, shuffled)
    snapshots = SnapshotStore(store, "s3://out/")  # type: ignore[arg-type]
    snapshots.begin(1, 1)
    settings = ListerSettings()
    parts: list[Part] = []
    entries = snapshot(ENTRIES)
    while chunk := list(itertools.islice(entries, settings.part_entries)):
        parts.append(snapshots.write_part(chunk))  # type: ignore[arg-type]
    spec = SourceSpec.model_validate(
        {"s3": {"bucket": "lake", "prefix": "raw/"}, "route": {"zip*": "zips", "*.csv": "exports"}}
    )
    scan = Scan(
        "s3-main",
        spec,
        NOTHING,
        store,  # type: ignore[arg-type]
        snapshots,
        settings,
        folder,
        steps=count(1),
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
    )
    emitted = 0
    last = None
    snapshots.begin(2, 1)
    for step, progress in scan.run(Snapshot("lake", tuple(parts), in_byte_order=not shuffled), ""):
        emitted += len(step.emits) if step else 0
        last = progress or last
    assert last is not None and last.finished
    after = write_out(last.draft, snapshots.write_part)
    gone = sum(entry.missing for entry in snapshots.entries(after))
    total = sum(part.entries for part in after)
    assert emitted == scan.counts.found
    return {"emitted": emitted, "gone": gone, "total": total}


def sorted_scan(folder: Path) -> dict[str, int]:
    return whole_scan(folder, shuffled=True)


CASES: dict[str, Callable[[Path], dict[str, int]]] = {
    "merge": merge_alone,
    "scan": whole_scan,
    "scan of a listing that must be sorted": sorted_scan,
}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", CASES)
def test_ten_million_keys_in_flat_memory(case: str, tmp_path: Path) -> None:
    command = [sys.executable, __file__, case, str(tmp_path)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(case, told)
    wanted = expected(ENTRIES)
    if case == "merge":
        assert told["result"] == {kind: wanted[kind] for kind in ("new", "changed", "gone")}
    else:
        found = wanted["new"] + wanted["changed"]
        assert told["result"] == {"emitted": found, "gone": wanted["gone"], "total": ENTRIES}
    assert told["rss_mib"] <= LIMIT_MIB
    assert ENTRIES / told["cpu_seconds"] >= RATE / (1 if case == "merge" else 4)


if __name__ == "__main__":
    began = time.process_time()
    result = CASES[sys.argv[1]](Path(sys.argv[2]))
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"result": result, "rss_mib": round(rss), "cpu_seconds": round(time.process_time() - began, 1)}))
