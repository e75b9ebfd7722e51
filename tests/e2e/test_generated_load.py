"""A large file with known truth through a fleet that is killed, frozen and reset: the same rows come out, once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingestcore.ledger import ObjectAudit, State
from ingestcore.testing import lake
from ingestcore.testing.fleet import LocalFleet
from ingestcore.testing.generate import Kind, Rows, Truth, generate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

RSS_LIMIT_BYTES = 512 << 20
DATASET = "orders"
SINK_SECONDS = 600.0
TWICE = ("--replicas", "csv-parser=2", "--replicas", "normalizer=2")
KILLED = (
    ("chunk-downloader", "chunk-downloader-0"),
    ("csv-parser", "csv-parser-0"),
    ("normalizer", "normalizer-1"),
    ("lake", "lake-0"),
)
"""Services and a replica of each, killed while the service has input that is not finished."""
COMPOSED = "chunk-downloader+csv-parser"
SIZES = [100, pytest.param(1050, marks=pytest.mark.long)]


@dataclass
class Load:
    """A fleet, a generated file and what must come of it."""

    fleet: LocalFleet
    truth: Truth
    expected: Path
    kind: Kind

    def check(self) -> ObjectAudit:
        """Everything is in the lake once, every bad row is a dead letter once, the ledger balances."""
        self.fleet.quiet(SINK_SECONDS)
        (found,) = self.fleet.settled(1).objects
        assert found.state is State.BALANCED, found
        assert (found.read, found.published) == (self.truth.rows, self.truth.fresh)
        assert (found.duplicates, found.dead) == (self.truth.duplicates, len(self.truth.bad))
        self._check_letters()
        connection = self.fleet.connection()
        rows, want = self.fleet.rows(connection, DATASET), lake.expected_rows(connection, self.expected)
        columns = Rows(kind=self.kind).shape.columns
        if self.kind is Kind.WIDE:
            assert lake.fingerprint(rows, columns) == lake.fingerprint(want, columns)
        else:
            assert lake.differences(connection, rows, want, columns) == ([], [])
        return found

    def _check_letters(self) -> None:
        letters = self.fleet.letters(self.fleet.connection(), ("row", "raw", "reason"))
        found = Counter((row, bytes(raw).rstrip(b"\r\n")) for row, raw, _ in letters)
        assert found == Counter((row.row, row.raw) for row in self.truth.bad)
        assert {reason for _, _, reason in letters} == {"VALIDATION_FAIL"}


@pytest.fixture
def start(make_fleet: Callable[..., LocalFleet], tmp_path: Path) -> Callable[..., Load]:
    """-> starts a fleet that finds one generated file."""

    def make(megabytes: float, kind: Kind, *options: str) -> Load:
        path, expected = tmp_path / "orders.csv", tmp_path / "expected.parquet"
        truth = generate(path, megabytes=megabytes, seed=11, kind=kind, expected=expected)
        fleet = make_fleet()
        source = fleet.source(route={"orders*.csv": DATASET})
        fleet.up({"sources": {fleet.name: source}, "datasets": {DATASET: Rows(kind=kind).shape.spec}}, *options)
        fleet.upload("orders.csv", path)
        return Load(fleet, truth, expected, kind)

    return make


@pytest.mark.parametrize("megabytes", SIZES)
@pytest.mark.parametrize("kind", [Kind.NARROW, Kind.WIDE])
def test_rows_and_dead_letters_are_exactly_the_generated_ones(
    start: Callable[..., Load], kind: Kind, megabytes: float
) -> None:
    load = start(megabytes, kind)
    load.check()
    memory = {label: _highest_rss_bytes(row.pid) for label, row in load.fleet.processes().items()}
    assert max(memory.values()) < RSS_LIMIT_BYTES, memory
    load.fleet.down()


@pytest.mark.parametrize("megabytes", SIZES)
def test_kills_freezes_and_resets_change_nothing(start: Callable[..., Load], megabytes: float) -> None:
    load = start(megabytes, Kind.NARROW, *TWICE)
    fleet = load.fleet
    killed = {}
    for instance, label in KILLED:
        _busy(fleet, instance)
        killed[label] = fleet.kill(label)
    killed |= {label: fleet.kill(label) for label in ("s3-lister-0", "dlq-0")}
    for label, pid in killed.items():
        fleet.await_restart(label, pid)
    frozen = [fleet.freeze("csv-parser-1"), fleet.freeze("normalizer-0")]
    time.sleep(8)  # longer than their session and their transaction
    for pid in frozen:
        fleet.thaw(pid)
    before = load.check()

    for instance, topic in (
        ("chunk-downloader", "objects"),
        ("csv-parser", "blocks"),
        ("normalizer", "typed"),
        ("lake", "normalized"),
    ):
        fleet.ingest("stop", instance)
        stopped = time.monotonic()
        fleet.reset(instance, topic)
        assert time.monotonic() - stopped < 10
        fleet.ingest("start", instance)
        after = load.check()
        assert after.replayed > before.replayed
        before = after
    fleet.down()


def test_two_services_in_one_process_are_as_exact(start: Callable[..., Load]) -> None:
    """Killed half-way, resumed, reset: the same rows, the same dead letters, the same account hop by hop."""
    load = start(50, Kind.NARROW, "--compose", COMPOSED)
    fleet = load.fleet
    _busy(fleet, "chunk-downloader")
    _until(lambda: fleet.waiting("normalizer") > 0)
    fleet.await_restart(f"{COMPOSED}-0", fleet.kill(f"{COMPOSED}-0"))
    before = load.check()
    assert fleet.end_offset("blocks") == 0, "nothing went through the topic between the two"
    fleet.ingest("stop", "chunk-downloader")
    fleet.reset("chunk-downloader", "objects")
    fleet.ingest("start", "csv-parser")  # either name means the process
    after = load.check()
    assert after.replayed >= before.replayed + load.truth.rows
    fleet.down()


def _until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


def _busy(fleet: LocalFleet, instance: str, seconds: float = 60.0) -> None:
    """Wait until a service has input that it has not finished."""
    _until(lambda: fleet.waiting(instance) > 0, seconds)


def _highest_rss_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
