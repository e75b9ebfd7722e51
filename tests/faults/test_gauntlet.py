"""Random faults in a row on a fleet under load: nothing is lost, nothing is doubled, nothing dies by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from devstack import seaweedfs
from devstack.commands import write_commands
from ingestcore.fleet.layout import Layout
from ingestcore.testing.faults.gauntlet import Plan, run
from ingestcore.testing.faults.load import Load
from ingestcore.testing.faults.state_disk import StateDisk
from ingestcore.testing.faults.world import World
from ingestcore.testing.fleet import LocalFleet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

MEGABYTES_PER_PIECE = 8
SPARES_PER_FAULT = 3
DISK_BYTES = 1 << 30
PARTITIONS = "4"
SMALL_MEMORY = {"INGEST_NORMALIZER_MEMTABLE_KEYS": "50000"}
"""Keys go to disk early, so that there are runs to be lost, swapped and refused by a full disk."""
QUICK = {"INGEST_SESSION_TIMEOUT_MS": "3000", "INGEST_TRANSACTION_TIMEOUT_MS": "5000"}


@dataclass(frozen=True)
class Round:
    """settings: of the services, beside their defaults. seed: of a round that is the same every time."""

    faults: int
    sequence: int
    megabytes: float
    replicas: Mapping[str, int]
    settings: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None


TWO_OF_SOME = {"csv-parser": 2, "normalizer": 2, "lake": 2}
BRIEF = Round(4, 4, 12, TWO_OF_SOME, QUICK, seed=1500)
SHORT = Round(8, 8, 80, TWO_OF_SOME, QUICK)
FIFTY = Round(50, 10, 1050, {"s3-lister": 2, "chunk-downloader": 2, "csv-parser": 3, "normalizer": 3, "lake": 2})


@pytest.fixture
def make_world(servers, folder: Path, say: Callable[[str], None]) -> Iterator[Callable[[Round, int], World]]:  # type: ignore[no-untyped-def]
    with ExitStack() as stack:

        def make(planned: Round, seed: int) -> World:
            write_commands(folder, servers.stack.endpoints)
            load = Load(
                folder / "load",
                megabytes=planned.megabytes,
                pieces=max(planned.faults, round(planned.megabytes / MEGABYTES_PER_PIECE)),
                spares=SPARES_PER_FAULT * planned.faults,
                seed=seed,
            )
            fleet = LocalFleet(
                folder / "ingest",
                f"faults-{time.time_ns() % 10**8}",
                {**servers.environ, **SMALL_MEMORY, **planned.settings, "INGEST_PARTITIONS": PARTITIONS},
                folder / "bin",
                lambda bucket: seaweedfs.create_bucket(servers.stack.endpoints.as_dict(), bucket),
            )
            disk = StateDisk.mount(Layout.of(fleet.folder).state, DISK_BYTES)
            if disk:
                stack.callback(disk.unmount)
            replicas = [option for name, n in planned.replicas.items() for option in ("--replicas", f"{name}={n}")]
            stack.callback(fleet.down)
            fleet.up(load.config(fleet), *replicas)
            return World(fleet, servers.stack, servers.proxy, load, disk, planned.replicas, say)

        yield make


@pytest.mark.parametrize(
    "planned",
    [
        pytest.param(BRIEF, id="brief"),
        pytest.param(SHORT, id="short", marks=pytest.mark.long),
        pytest.param(FIFTY, id="fifty", marks=pytest.mark.long),
    ],
)
def test_random_faults_in_a_row_lose_and_double_nothing(
    make_world: Callable[[Round, int], World],
    planned: Round,
    request: pytest.FixtureRequest,
    say: Callable[[str], None],
) -> None:
    option = request.config.getoption
    given, only, count = option("--fault-seed"), option("--fault-only"), option("--fault-count")
    seed = next(int(n) for n in (given, planned.seed, time.time_ns() % 10**6) if n is not None)
    again = f"pytest {request.node.nodeid.partition('::')[0]} -k {request.node.callspec.id} --fault-seed {seed}"
    say(f"\nseed {seed}; again: {again}")
    names = frozenset(filter(None, (only or "").split(",")))
    planned = replace(planned, faults=count or planned.faults)
    world = make_world(planned, seed)
    try:
        run(world, Plan(planned.faults, planned.sequence, seed, names))
    except BaseException as failure:
        failure.add_note(f"seed {seed}; again: {again}")
        raise
    world.fleet.down()
    world.check_deaths()
